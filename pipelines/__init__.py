"""Pipelines assembled from the component suite, and their compilation to YAML."""
