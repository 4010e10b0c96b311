"""Fetch: a release from where package has published it, verified, as the artifact that deploy takes."""
