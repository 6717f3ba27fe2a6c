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


# ------------------------------------------------------- returns, advantages


def gae(rewards, values, discount, gae_lambda, where, final_value):
  """One trajectory: the counted steps are taken out and walked backwards."""
  steps = np.flatnonzero(where)
  discount = np.broadcast_to(discount, rewards.shape)
  advantages = np.zeros(len(rewards))
  following, ahead = final_value, 0.0
  for t in steps[::-1]:
    delta = rewards[t] + discount[t] * following - values[t]
    ahead = delta + discount[t] * gae_lambda * ahead
    advantages[t], following = ahead, values[t]
  returns = np.zeros(len(rewards))
  returns[steps] = advantages[steps] + values[steps]
  return advantages, returns


def categorical_returns(value_probs, final_probs, gae_lambda, where):
  """One trajectory of λ-returns of distributions, [T, d]."""
  returns = np.zeros_like(value_probs)
  following = ahead = final_probs
  for t in np.flatnonzero(where)[::-1]:
    ahead = (1 - gae_lambda) * following + gae_lambda * ahead
    returns[t], following = ahead, value_probs[t]
  return returns


def two_hot(value, low, high, num_atoms):
  """Mass on the two atoms around a value, [num_atoms]."""
  atoms = np.linspace(low, high, num_atoms)
  value = min(max(value, low), high)
  out = np.zeros(num_atoms)
  above = min(int(np.searchsorted(atoms, value)), num_atoms - 1)
  below = max(above - 1, 0)
  if above == below:
    out[above] = 1.0
    return out
  out[above] = (value - atoms[below]) / (atoms[above] - atoms[below])
  out[below] = 1 - out[above]
  return out


def projected_returns(
  value_probs, rewards, low, high, discount, gae_lambda, where,
  final_probs=(1.0,), final_gaps=(0.0,),
):  # fmt: skip
  """One trajectory of projected λ-returns of laws, [T, M]."""
  num_atoms = value_probs.shape[-1]
  returns = np.zeros_like(value_probs)
  following = ahead = None
  for t in np.flatnonzero(where)[::-1]:
    if ahead is None:
      ahead = sum(
        p * two_hot(rewards[t] + gap, low, high, num_atoms)
        for p, gap in zip(final_probs, final_gaps, strict=True)
      )
    else:
      mixed = (1 - gae_lambda) * following + gae_lambda * ahead
      atoms = np.linspace(low, high, num_atoms)
      ahead = sum(
        mass * two_hot(rewards[t] + discount * atom, low, high, num_atoms)
        for mass, atom in zip(mixed, atoms, strict=True)
      )
    returns[t], following = ahead, value_probs[t]
  return returns


def segment_mean(x, segment, num_segments, where):
  rows = [x[where & (segment == k)] for k in range(num_segments)]
  return np.array([np.mean(r, axis=0) if len(r) else 0 * x[0] for r in rows])


# ------------------------------------------------ denoising, contrast, MetaRM


def preference_strength(margins):
  mean = sum(margins) / len(margins)
  return mean, np.sqrt(sum((d - mean) ** 2 for d in margins) / len(margins))


def unit(x):
  norm = np.linalg.norm(x, axis=-1, keepdims=True)
  return x / np.where(norm == 0, 1, norm)


def simcse_loss(view_a, view_b, temperature, where):
  a, b = unit(view_a), unit(view_b)
  loss = np.zeros(len(a))
  for i in np.flatnonzero(where):
    candidates = [
      np.exp(a[i] @ b[j] / temperature) for j in np.flatnonzero(where)
    ]
    loss[i] = -np.log(np.exp(a[i] @ b[i] / temperature) / sum(candidates))
  return loss


def balanced_assignments(scores, num_iters, extra=None):
  rows = scores if extra is None else np.concatenate([scores, extra])
  q = np.exp(rows - rows.max())
  q /= q.sum()
  for _ in range(num_iters):
    q /= q.sum(axis=0, keepdims=True) * q.shape[1]
    q /= q.sum(axis=1, keepdims=True) * q.shape[0]
  return (q * q.shape[0])[: len(scores)]


def swav_loss(view_a, view_b, prototypes, temperature, epsilon, num_iters):
  a, b, c = unit(view_a), unit(view_b), unit(prototypes)

  def loss(x, q):
    p = np.exp(x @ c.T / temperature)
    return -np.sum(q * np.log(p / p.sum(axis=1, keepdims=True)), axis=1)

  q_a = balanced_assignments(a @ c.T / epsilon, num_iters)
  q_b = balanced_assignments(b @ c.T / epsilon, num_iters)
  return loss(a, q_b) + loss(b, q_a)


def reward_spread(rewards):
  k = len(rewards)
  return (
    2
    / k**2
    * sum(
      sigmoid(abs(rewards[i] - rewards[j]))
      for i in range(k)
      for j in range(i + 1, k)
    )
  )


# ------------------------------------------------------------ mixture, welfare


def mixture_log_likelihood(gaps, user, num_users, mixture_weights, where):
  total = 0.0
  for u in range(num_users):
    joint = np.prod(sigmoid(gaps[where & (user == u)]), axis=0)
    total += np.log(np.sum(mixture_weights * joint))
  return total


def user_responsibilities(gaps, user, num_users, mixture_weights, where):
  rows = []
  for u in range(num_users):
    joint = np.prod(sigmoid(gaps[where & (user == u)]), axis=0)
    rows.append(mixture_weights * joint / np.sum(mixture_weights * joint))
  return np.array(rows)


def welfare(
  utilities, kind, weights=None, temperature=None, order=None, alpha=None
):
  u = utilities
  w = np.full(len(u), 1 / len(u)) if weights is None else weights
  if kind == "egalitarian":
    return u.min()
  if kind == "utilitarian":
    return w @ u
  if kind == "nash" or (kind == "alpha_fair" and order == 1):
    return w @ np.log(u)
  if kind == "alpha_fair":
    return w @ (u ** (1 - order)) / (1 - order)
  if kind == "soft_min":
    return -temperature * np.log(w @ np.exp(-u / temperature))
  total, left = 0.0, alpha  # cvar: from the worst up, until α is used up
  for k in np.argsort(u, kind="stable"):
    total += min(left, w[k]) * u[k]
    left -= min(left, w[k])
  return total / alpha


# --------------------------------------------------------- policy optimisation


def clipped_policy_loss(log_probs, old, advantages, clip_eps, dual_clip=None):
  out = []
  for ratio, a in zip(np.exp(log_probs - old), advantages, strict=True):
    low, high = clip_eps if isinstance(clip_eps, tuple) else [clip_eps] * 2
    l = -min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a)
    if dual_clip is not None and a < 0:
      l = min(l, -dual_clip * a)
    out.append(l)
  return np.array(out)


def decoupled_advantages(rewards, weights):
  """GDPO: rewards [P, G, K] of P prompts, before the batch is whitened."""
  out = np.zeros(rewards.shape[:2])
  for prompt in range(len(rewards)):
    for k, weight in enumerate(weights):
      r = rewards[prompt, :, k]
      out[prompt] += weight * (r - r.mean()) / (r.std(ddof=1) + 1e-6)
  return out


def clipped_value_loss(values, old, returns, clip_eps):
  near = old + np.clip(values - old, -clip_eps, clip_eps)
  return 0.5 * np.maximum((values - returns) ** 2, (near - returns) ** 2)


def kl_estimate(log_probs, ref, estimator):
  ratio = np.exp(ref - log_probs)
  return dict(
    k1=-np.log(ratio), k2=np.log(ratio) ** 2 / 2, k3=ratio - 1 - np.log(ratio)
  )[estimator]


def token_rewards(scores, kl, kl_coef, where):
  out = np.where(where, -kl_coef * kl, 0.0)
  for b, score in enumerate(scores):
    if where[b].any():
      out[b, np.flatnonzero(where[b])[-1]] += score
  return out


def repeated_ngram_fraction(tokens, where, ngram):
  windows = [
    tuple(tokens[i : i + ngram])
    for i in range(len(tokens) - ngram + 1)
    if where[i : i + ngram].all()
  ]
  return 1 - len(set(windows)) / len(windows) if windows else 0.0


def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta, flip_rate=0.0):
  gap = beta * (np.log(np.exp(chosen - ref_chosen)) - (rejected - ref_rejected))
  return bradley_terry_loss(gap, 0.0, 0.0, flip_rate)


def robust_preference_loss(chosen, rejected, flip_rate, margin=0.0):
  gap = chosen - rejected - margin
  kept, flipped = (bradley_terry_loss(g, 0.0) for g in (gap, -gap))
  return ((1 - flip_rate) * kept - flip_rate * flipped) / (1 - 2 * flip_rate)


def ipo_loss(chosen, rejected, beta, chosen_prob=1.0, margin=0.0):
  h = (chosen - rejected - margin) / beta
  agree, flipped = ((sign * h - 1 / (2 * beta)) ** 2 for sign in (1, -1))
  return chosen_prob * agree + (1 - chosen_prob) * flipped


def kto_loss(rewards, point, desirable, desired=1.0, undesired=1.0):
  p = np.asarray(desirable, np.float64)
  up, down = sigmoid(rewards - point), sigmoid(point - rewards)
  return p * desired * (1 - up) + (1 - p) * undesired * (1 - down)


# ---------------------------------------------------------------------- bounds


def optimal_policy(reference, rewards, beta):
  p = reference * np.exp(rewards / beta)
  return p / p.sum(axis=-1, keepdims=True)


def regularised_utility(policy, reference, rewards, beta):
  return np.sum(policy * (rewards - beta * np.log(policy / reference)), axis=-1)


# ------------------------------------------------------------------- transport


def sinkhorn(a, b, cost, epsilon, num_iters=20_000):
  """One problem by plain alternating updates of positive masses, float64."""
  rows, cols = np.flatnonzero(a), np.flatnonzero(b)
  m = cost[np.ix_(rows, cols)] / epsilon
  log_a, log_b = np.log(a[rows]), np.log(b[cols])
  g = np.zeros(len(cols))
  for _ in range(num_iters):
    f = -np.logaddexp.reduce(log_b[None] + g[None] - m, axis=1)
    g = -np.logaddexp.reduce(log_a[:, None] + f[:, None] - m, axis=0)
  f = -np.logaddexp.reduce(log_b[None] + g[None] - m, axis=1)
  plan = np.zeros_like(cost)
  plan[np.ix_(rows, cols)] = np.exp(
    log_a[:, None] + log_b[None] + f[:, None] + g[None] - m
  )
  product = np.outer(a, b)
  used = plan > 0
  divergence = np.sum(plan[used] * np.log(plan[used] / product[used]))
  divergence += product.sum() - plan.sum()
  return plan, np.sum(plan * cost), np.sum(plan * cost) + epsilon * divergence


def transport_cost(a, b, cost):
  """The unregularised optimum by linear programming."""
  from scipy.optimize import linprog

  d, e = cost.shape
  sums = np.zeros((d + e, d * e))
  for i in range(d):
    sums[i, i * e : (i + 1) * e] = 1
  for j in range(e):
    sums[d + j, j::e] = 1
  # One row follows from the others; leaving it out absorbs rounding of the sum.
  out = linprog(cost.ravel(), A_eq=sums[:-1], b_eq=np.concatenate([a, b])[:-1])
  return out.fun


# -------------------------------------------------------------------- min norm


def min_norm_weights(gram):
  """The quadratic programme over the simplex, by SciPy."""
  from scipy.optimize import minimize

  size = len(gram)
  scale = np.min(np.diag(gram))
  out = minimize(
    lambda x: x @ gram @ x / scale,
    np.full(size, 1 / size),
    jac=lambda x: 2 * gram @ x / scale,
    method="SLSQP",
    bounds=[(0, 1)] * size,
    constraints=[dict(type="eq", fun=lambda x: x.sum() - 1)],
    options=dict(maxiter=1000, ftol=1e-15),
  )
  return out.x


def frank_wolfe_weights(gram, num_steps=1000):
  """The papers' solver: best pair first, then steps towards one vertex."""
  size = len(gram)
  best = (np.inf, None)
  for i in range(size):
    for j in range(i + 1, size):
      a, b, c = gram[i, i], gram[i, j], gram[j, j]
      if b >= min(a, c):
        share = 1.0 if a <= c else 0.0
      else:
        share = (c - b) / (a + c - 2 * b)
      weights = share * np.eye(size)[i] + (1 - share) * np.eye(size)[j]
      best = min(best, (weights @ gram @ weights, tuple(weights)))
  weights = np.array(best[1])
  for _ in range(num_steps):
    vertex = np.eye(size)[np.argmin(gram @ weights)]
    a, b = weights @ gram @ weights, weights @ gram @ vertex
    c = vertex @ gram @ vertex
    if b >= a:
      break
    share = 0.0 if b >= c else (c - b) / (a + c - 2 * b)
    weights = share * weights + (1 - share) * vertex
  return weights


# ---------------------------------------------------------------------- MORE


def reward_head_gradients(
  chosen_features, rejected_features, gaps, source, num_sources
):
  """Eq. (8) at the head: −mean σ(−gap) (z_chosen − z_rejected) per source."""
  out = np.zeros((num_sources, chosen_features.shape[1]))
  for k in range(num_sources):
    pairs = np.flatnonzero(source == k)
    for n in pairs:
      difference = chosen_features[n] - rejected_features[n]
      out[k] -= sigmoid(-gaps[n]) * difference / len(pairs)
  return out


def more_weights(gradients):
  unit = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
  return min_norm_weights(unit @ unit.T)


# ---------------------------------------------------------------------- DPRM


def cvar_utility(probs, utilities, alpha, num_points=200_000):
  """Mean of the lower α quantiles, by sampling the quantile function."""
  order = np.argsort(utilities)
  edges = np.cumsum(probs[order])
  u = (np.arange(num_points) + 0.5) / num_points * alpha
  index = np.minimum(np.searchsorted(edges, u), len(probs) - 1)
  return utilities[order][index].mean()


def targeted_label_smoothing(probs, epsilon, prior=None, cost=None):
  top = int(np.argmax(probs))
  others = [i for i in range(len(probs)) if i != top]
  key = lambda i: (
    -probs[i],
    0 if prior is None else -prior[i],
    0 if cost is None else cost[top][i],
    i,
  )
  runner_up = min(others, key=key)
  out = np.array(probs, np.float64)
  excess = max(out[top] - (1 - epsilon), 0.0)
  out[top] -= excess
  out[runner_up] += excess
  return out
