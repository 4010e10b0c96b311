"""Rollouts that judge themselves: policy, observation, the machine that decides, and what it leaves as evidence."""
