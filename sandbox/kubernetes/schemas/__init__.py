"""Schemas as data: `models.json` is generated, `extra.json` is written by hand; `generate.py` is a development tool."""
