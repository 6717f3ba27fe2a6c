"""What is reported and never optimised: jax and numpy only."""
