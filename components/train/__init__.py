"""Train a PyTorch classifier on a table."""
