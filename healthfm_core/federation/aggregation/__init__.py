"""How the replies of a round become one step of the server, one file per algorithm.

`aggregator` says what an algorithm is and `registry` finds them by the name that
``federation.aggregation.method`` gives. `per_code_mean` and `server_optimizer` come after whichever
of them made the means.
"""
