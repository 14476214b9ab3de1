"""Reading what sources are made of: archives, tables in CSV and Parquet, texts of time, signals."""
