"""Kubeflow's APIs on one machine: pipelines, KServe, traffic and metrics without Kubernetes or Docker."""
