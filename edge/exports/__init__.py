"""Rows of the database as files: CSV, NDJSON, Parquet; streamed, in constant memory, from one snapshot."""
