"""From events to tokens, with a vocabulary that no site's rows were pooled for.

Round 0 of a study: each site counts (`statistics.site_statistics`), the counts add up
(`statistics.merge`), the server freezes them into a vocabulary (`vocabulary.build_vocabulary`),
and each site tokenises its own stores by it (`tokenizer.tokenize`). Read in that order; `values`
holds the quantile sketch, `wearing` the wearable device, `records` what is read of a store.
"""
