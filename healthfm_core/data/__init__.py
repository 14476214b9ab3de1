"""The data layer: a site's store in MEDS 0.4 on Parquet, and the columnar records made of it.

`store.SiteStore` reads, `writer.StoreWriter` writes (all or nothing); `events`, `wearables`,
`genetics`, `labels` and `splits` say what each table must be; `integrity` checks it. `sequences`
and `batch` are what a model's rows are made of.
"""
