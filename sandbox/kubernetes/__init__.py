"""The sandbox's Kubernetes API: kube-apiserver's behaviour for the kinds that Kanary uses, over SQLite."""
