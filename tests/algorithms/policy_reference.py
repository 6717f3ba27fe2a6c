"""One PPO iteration on the table policy, in NumPy loops, from the papers."""

import numpy as np

from tests.algorithms.bigram import N, P


def log_softmax(table):
  peak = table.max(axis=-1, keepdims=True)
  return table - peak - np.log(np.exp(table - peak).sum(-1, keepdims=True))


def token_log_probs(table, tokens):
  """[N] of the responses of one row."""
  logs = log_softmax(np.asarray(table))
  return np.array([logs[tokens[P - 1 + t], tokens[P + t]] for t in range(N)])


def advantages(actor, frozen, critic, batch, *, kl_coef, discount, lam, scores):
  """Advantages, returns and old values of all rows, lists of [length]."""
  found = []
  for i, tokens in enumerate(np.asarray(batch["tokens"])[:, 0]):
    length = int(np.asarray(batch["mask"])[i, 0, P:].sum())
    if not batch["where"][i]:
      found.append(None)
      continue
    gap = token_log_probs(actor, tokens) - token_log_probs(frozen, tokens)
    rewards = -kl_coef * gap[:length]
    rewards[-1] += scores[i]
    values = np.asarray(critic)[tokens[P - 1 : P - 1 + length]]
    out, running = np.zeros(length), 0.0
    for t in reversed(range(length)):
      following = values[t + 1] if t + 1 < length else 0.0
      delta = rewards[t] + discount * following - values[t]
      running = delta + discount * lam * running
      out[t] = running
    found.append((out, out + values, values))
  return found


def whiten(rows):
  every = np.concatenate([row[0] for row in rows if row is not None])
  mean, std = every.mean(), every.std()
  return [
    None if row is None else ((row[0] - mean) / std, *row[1:]) for row in rows
  ]


def policy_loss(table, old, batch, rows, clip_eps):
  """Token mean of the clipped surrogate."""
  total = count = 0.0
  for i, row in enumerate(rows):
    if row is None:
      continue
    tokens = np.asarray(batch["tokens"])[i, 0]
    ratio = np.exp(
      token_log_probs(table, tokens) - token_log_probs(old, tokens)
    )
    for t, advantage in enumerate(row[0]):
      clipped = min(max(ratio[t], 1 - clip_eps), 1 + clip_eps)
      total += max(-ratio[t] * advantage, -clipped * advantage)
      count += 1
  return total / count


def value_loss(critic, batch, rows, clip):
  """Token mean of the clipped value loss, with the half."""
  total = count = 0.0
  for i, row in enumerate(rows):
    if row is None:
      continue
    tokens = np.asarray(batch["tokens"])[i, 0]
    for t, (target, old) in enumerate(zip(row[1], row[2], strict=True)):
      value = critic[tokens[P - 1 + t]]
      held = min(max(value, old - clip), old + clip)
      total += 0.5 * max((value - target) ** 2, (held - target) ** 2)
      count += 1
  return total / count


def slope(function, at, step=1e-6):
  """Central differences of a scalar function of an array."""
  at = np.array(at, np.float64)
  out = np.zeros_like(at)
  for index in np.ndindex(at.shape):
    ends = []
    for sign in (1, -1):
      moved = at.copy()
      moved[index] += sign * step
      ends.append(function(moved))
    out[index] = (ends[0] - ends[1]) / (2 * step)
  return out
