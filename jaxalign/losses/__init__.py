"""Preference and policy losses, pure and unreduced: jax and numpy only."""
