"""What keeps a person's part in training from being told: noise, its price, and its ledger.

`clipping` bounds what one person can move, `entropy` draws who takes part and the noise,
`accounting` says what that costs, `ledger` adds it up over all studies of a site's life, `audit`
tries to break it. The loop that puts them together is `training.private`.
"""
