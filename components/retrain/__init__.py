"""Deciding whether a model is trained again, and starting that run."""
