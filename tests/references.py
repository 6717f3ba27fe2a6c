"""float64 NumPy from the papers' formulas: what the library must equal.

One function per quantity, written for clarity with loops where the library
vectorises, and importing nothing from it.
"""

import numpy as np

# ---------------------------------------------------------------- statistics


def masked_mean(x, where):
  return np.mean(x[where]) if where.any() else 0.0


def masked_var(x, where):
  return np.var(x[where]) if where.any() else 0.0


def masked_whiten(x, where):
  out = np.zeros_like(x)
  out[where] = (x[where] - np.mean(x[where])) / np.std(x[where])
  return out


# ------------------------------------------------------------- pairwise losses


def sigmoid(x):
  return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def bradley_terry_loss(chosen, rejected, margin=0.0, flip_rate=0.0):
  p = sigmoid(chosen - rejected - margin)
  return -(1 - flip_rate) * np.log(p) - flip_rate * np.log(1 - p)


def soft_preference_loss(chosen, rejected, chosen_prob, margin=0.0):
  p = sigmoid(chosen - rejected - margin)
  return -chosen_prob * np.log(p) - (1 - chosen_prob) * np.log(1 - p)


def plackett_luce_loss(scores):
  """One ranking, best first: the best of what is left is taken, in turn."""
  loss = 0.0
  for i in range(len(scores)):
    left = np.exp(scores[i:])
    loss -= np.log(left[0] / left.sum())
  return loss


def luce_choice_loss(scores, votes):
  p = np.exp(scores) / np.exp(scores).sum()
  return -np.sum(votes * np.log(p))


# ----------------------------------------------------- preference, calibration


def expected_calibration_error(gaps, num_bins=10):
  """Both orders of each pair, equal-width bins, half-open on the right."""
  p = np.concatenate([sigmoid(gaps), sigmoid(-gaps)])
  label = np.concatenate([np.ones(len(gaps)), np.zeros(len(gaps))])
  index = np.minimum((p * num_bins).astype(int), num_bins - 1)
  error = 0.0
  for b in range(num_bins):
    inside = index == b
    if inside.any():
      error += inside.mean() * abs(label[inside].mean() - p[inside].mean())
  return error


def maximum_calibration_error(gaps, num_bins=10):
  p = np.concatenate([sigmoid(gaps), sigmoid(-gaps)])
  label = np.concatenate([np.ones(len(gaps)), np.zeros(len(gaps))])
  index = np.minimum((p * num_bins).astype(int), num_bins - 1)
  return max(
    abs(label[index == b].mean() - p[index == b].mean())
    for b in range(num_bins)
    if (index == b).any()
  )


def adaptive_calibration_error(gaps, num_bins=10):
  p = np.concatenate([sigmoid(gaps), sigmoid(-gaps)])
  label = np.concatenate([np.ones(len(gaps)), np.zeros(len(gaps))])
  order = np.argsort(p, kind="stable")
  part = np.arange(len(p)) * num_bins // len(p)
  inside = [order[part == b] for b in np.unique(part)]
  return np.mean([abs(label[c].mean() - p[c].mean()) for c in inside])
