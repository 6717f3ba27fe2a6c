"""Synthetic preference data: annotator crowds, oracles, a gridworld."""
