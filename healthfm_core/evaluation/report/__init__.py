"""The report: one page with its `sections` and `plots`, and the tables of the terminal."""
