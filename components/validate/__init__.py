"""Validate: a dataset judged against its schema, and typed by it."""
