"""A site's store: one folder of Parquet files in MEDS 0.4.

`schemas` and `store_files` say what lies where; `events`, `wearables`, `genetics`, `labels` and
`splits` say what each table must be; `site_store` reads, `writer` writes (all or nothing), and
`integrity` checks. `event_stream`, `event_spool` and `stream_writer` write events that do not fit
in memory; `event_order` sorts them.
"""
