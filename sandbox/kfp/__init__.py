"""The sandbox's Kubeflow Pipelines API: REST v2beta1 over SQLite."""
