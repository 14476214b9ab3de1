"""Federation without transport: what both sides share, and the maths of a round.

`groups` says which parameters a site may move, `protocol` what crosses the wire, `wire` how an
array travels, `checks` what the server believes, `aggregation` how replies become one update and
`server_optimizer` what the server does with it. Nothing here imports Flower.
"""
