"""Turn a model that passed its gates into a release."""
