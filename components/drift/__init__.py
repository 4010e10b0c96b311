"""Whether two data sets differ, by feature, with a report for the Kubeflow UI."""
