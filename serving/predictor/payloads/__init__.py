"""The payload log: what was asked and answered, as the CloudEvents that KServe's agent would send."""
