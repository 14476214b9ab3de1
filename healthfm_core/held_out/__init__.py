"""How a study's model does on the held-out people of one site, computed where they are.

`HeldOutPeople` asks a model about them, `SiteEvaluation` is what may be told of the answers.
"""
