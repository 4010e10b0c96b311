"""The sandbox's metrics store: a real Prometheus, found or fetched, configured and started."""
