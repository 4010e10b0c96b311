"""Deploy: a released model to an InferenceService, as a canary that proves itself before it gets traffic."""
