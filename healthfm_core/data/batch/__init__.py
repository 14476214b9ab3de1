"""From people's records to the rows of a batch.

`sequences` holds ragged records of many subjects; `row_plan` says whose record is read up to when
and what is hidden of it (`hiding`, `occurrences`); `collate` puts the rows into a `batch`; `loader`
yields batches in their order.
"""
