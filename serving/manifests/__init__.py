"""Kubernetes objects for serving, as YAML: the ServingRuntime that makes `modelFormat: kanary` enough."""
