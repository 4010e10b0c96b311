"""Kanary's shared core: types, config, errors, API clients. Never imports torch, kfp, kserve or pandas."""

__version__ = "0.1.0"
