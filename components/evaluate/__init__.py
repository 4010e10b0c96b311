"""Measure a model on rows it has not seen, and judge it by its gates."""
