"""Numerics without a word of preferences: jax and numpy only."""
