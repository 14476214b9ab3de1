"""The data layer: a site's store in MEDS 0.4 on Parquet, and the batches a model reads of it.

`store` is what lies on disk and how it is read, checked and written; `batch` is what becomes of
people's records in memory: ragged columns, plans of rows, and batches. `batch` knows `store`, never
the other way about.
"""
