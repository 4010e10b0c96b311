"""Rollout: takes a canary through its policy's steps, judged at each, to its promotion or back."""
