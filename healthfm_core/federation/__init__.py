"""Federation without transport: what both sides share, and the maths of a round.

`groups` says which parameters a site may move, `protocol` what crosses the wire, `wire` how an
array travels, `update_checks` what the server believes, `aggregation` how replies become one
update and what the server does with it, `secure` how replies stand in sums that hide each of
them. Nothing here imports Flower.
"""
