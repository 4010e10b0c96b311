"""Payloads: what a service was asked, from its logged events, as a dataset."""
