"""The interpreter of compiled pipelines: what runs, when, with which inputs, in which worker."""
