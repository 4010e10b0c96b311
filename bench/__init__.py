"""Benchmarks: `python -P -m bench.NAME` measures Kanary and its peers in the same run."""
