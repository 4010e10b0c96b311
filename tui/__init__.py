"""The monitor: a Textual terminal app over `kanary`'s core. Loads nothing heavy, never blocks on a server."""
