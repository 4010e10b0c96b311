"""`make demo`: the whole path on real data in the sandbox, through the tools that people use."""
