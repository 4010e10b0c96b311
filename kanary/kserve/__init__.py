"""KServe's InferenceServices: their effective traffic, and the only writer of it (Knative mode)."""
