"""Reward model training: recipes, scoring, metrics per group."""
