"""What runs behind an InferenceService, and the model code that training shares with it."""
