"""HealthFM's library: data, model and maths of a federated multimodal health model.

Nothing here knows Flower, Hydra (one file excepted) or sockets; the layers are in pyproject.toml.
"""
