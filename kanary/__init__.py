"""Kanary's shared core: types, config, errors, API clients. Never imports torch, kfp, kserve or pandas."""

from __future__ import annotations

__version__ = "0.1.0"
