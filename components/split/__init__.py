"""Split: a dataset in two, for training and for testing."""
