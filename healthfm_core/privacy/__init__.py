"""What keeps a site's people from the coordinator; below the models.

Noise, its price, and its ledger hide a person's part in training: `clipping`
bounds what one person can move, `entropy` draws who takes part and the noise, `accounting` says
what that costs, `ledger` adds it up over all studies of a site's life, `audit` tries to break it.
What puts them together is `training.gradients.dp_sgd`. `secure_aggregation` opens sums of sites and
nothing smaller.
"""
