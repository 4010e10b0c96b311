"""The verbs of the command line, each a function that `kanary.cli` finds by name."""
