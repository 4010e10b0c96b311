"""Runs model servers: one process a revision, forked warm where its runtime says what to preload."""
