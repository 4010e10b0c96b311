"""The sandbox's KServe controller: reconciles InferenceServices in Knative mode over the Kubernetes API."""
