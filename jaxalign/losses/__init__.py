"""Preference and policy losses, pure and unreduced: jax and numpy only."""

from jaxalign.losses.pairwise import (
  bradley_terry_loss,
  luce_choice_loss,
  plackett_luce_loss,
  reward_centering_penalty,
  soft_preference_loss,
)

__all__ = [
  "bradley_terry_loss",
  "luce_choice_loss",
  "plackett_luce_loss",
  "reward_centering_penalty",
  "soft_preference_loss",
]
