"""The model server behind an InferenceService: KServe's own, around a verified model directory."""
