"""The drift detector: KServe's inference CloudEvents in, Prometheus metrics and verdicts out. Imports nothing here."""
