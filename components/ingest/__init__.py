"""Ingest: raw data from a path or URL to one Parquet file."""
