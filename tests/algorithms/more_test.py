"""MORE through the two-phase update: λ by QP, and one number in any layout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from absl.testing import absltest, parameterized

from jaxalign.algorithms import bradley_terry, more
from jaxalign.algorithms import update as contract
from tests import surgery_references
from tests.algorithms import layouts

B, T, V, D, K = 16, 5, 11, 3, 3
PLAIN = {"labels": "hard", "flip_rate": 0.0, "margin": None, "centering": 0.0}

GRADNORM = dict(
  weights="gradnorm", normalise=None, asymmetry=1.5, step_size=0.1
)


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def apply(params, tokens, mask, *, dropout_keys=None):
  """A linear head on the mean embedding of attended tokens."""
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  features = values.sum(1) / mask.sum(1)[:, None]
  if dropout_keys is not None:
    draw = lambda k: jax.random.bernoulli(k, 0.8, (D,))
    features = jnp.where(jax.vmap(draw)(dropout_keys), features, 0.0)
  return Output((features @ params["head"])[:, None], features)


def config(**changes):
  base = dict(
    name="more",
    num_sources=K,
    weights="min_norm",
    fixed=None,
    normalise="l2",
    decay=None,
    parts=1,
  )
  return more.MoreConfig(**base | changes)


def min_norm_reference(rows):
  """argmin ‖λᵀ rows‖² on the simplex, by scipy."""
  solution = scipy.optimize.minimize(
    lambda w: np.sum((w @ rows) ** 2),
    np.full(len(rows), 1 / len(rows)),
    jac=lambda w: 2 * rows @ (w @ rows),
    bounds=[(0, 1)] * len(rows),
    constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
    options={"ftol": 1e-16, "maxiter": 500},
  )
  return solution.x


class MoreTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.params = {
      "table": jnp.array(rng.normal(size=(V, D))),
      "head": jnp.array(rng.normal(size=D)),
    }
    lengths = rng.integers(1, T + 1, size=(B, 2))
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(np.arange(T) < lengths[..., None]),
      "where": jnp.array([True] * 5 + [False] + [True] * 10),
      "margin": jnp.array(rng.uniform(size=B), jnp.float32),
      "source": jnp.array(np.arange(B) % K, jnp.int32),
      "row": jnp.arange(B, dtype=jnp.int32),
    }

  def objective(self, *, dropout=False, loss=PLAIN, **changes):
    return more.more(
      apply,
      config(**changes),
      bradley_terry.PairLossConfig(**loss),
      batch_size=B,
      num_features=D,
      dropout=dropout,
    )

  def keyed(self):
    key = jax.random.fold_in(jax.random.key(2), 0)
    return self.batch | {"key": contract.row_keys(key, self.batch["row"])}

  def result(self, objective, **options):
    gradient = contract.make_gradient(objective, **options)
    return gradient(self.params, self.keyed(), objective.carry)

  def rows_of(self, part, k, parts=1):
    b = self.batch
    mine = np.array(b["where"]) & (np.array(b["source"]) == k)
    return mine & (np.array(b["row"]) // (B // parts) == part)

  def source_loss(self, params, mine, loss=PLAIN):
    """Mean pair loss of some rows, by autodiff all the way."""
    rewards = apply(
      params,
      self.batch["tokens"].reshape(-1, T),
      self.batch["mask"].reshape(-1, T),
    ).rewards.reshape(B, 2)
    gap = rewards[:, 0] - rewards[:, 1]
    if loss["margin"]:
      gap = gap - self.batch["margin"]
    e = loss["flip_rate"]
    per_pair = -(1 - e) * jax.nn.log_sigmoid(gap) - e * jax.nn.log_sigmoid(-gap)
    per_pair += loss["centering"] * rewards.sum(1) ** 2
    return jnp.mean(per_pair, where=jnp.array(mine))

  @parameterized.parameters(
    ({}, 1),
    ({}, 2),
    ({"flip_rate": 0.1, "margin": "column", "centering": 0.05}, 1),
  )
  def test_weights_loss_and_gradient_follow_the_paper(self, changes, parts):
    loss = PLAIN | changes
    got = self.result(self.objective(parts=parts, loss=loss, normalise="none"))
    total, gradient = 0.0, jax.tree.map(jnp.zeros_like, self.params)
    weights = np.zeros((parts, K))
    for part in range(parts):
      masks = [self.rows_of(part, k, parts) for k in range(K)]
      each = [
        jax.value_and_grad(self.source_loss)(self.params, mine, loss)
        for mine in masks
      ]
      heads = np.stack([g["head"] for _, g in each])
      weights[part] = min_norm_reference(heads)
      for weight, (value, grads) in zip(weights[part], each, strict=True):
        total += weight * value / parts
        gradient = jax.tree.map(
          lambda a, g, w=weight: a + w * g / parts, gradient, grads
        )
    for k in range(K):
      np.testing.assert_allclose(
        got.scalars[f"train/source_weight/{k}"],
        weights[:, k].mean(),
        atol=1e-6,  # the oracle's, not ours
      )
    np.testing.assert_allclose(got.loss, total, rtol=1e-6)
    for name, expected in gradient.items():
      np.testing.assert_allclose(got.gradient[name], expected, atol=2e-6)

  @parameterized.parameters("pcgrad", "cagrad")
  def test_surgery_of_the_head_gradients(self, weights):
    radius = 0.5 if weights == "cagrad" else None
    got = self.result(
      self.objective(weights=weights, normalise=None, radius=radius)
    )
    each = [
      jax.value_and_grad(self.source_loss)(self.params, self.rows_of(0, k))
      for k in range(K)
    ]
    heads = np.stack([g["head"] for _, g in each])
    self.assertLess(np.min(heads @ heads.T), 0)  # they conflict
    expected = (
      surgery_references.pcgrad_direction(heads)
      if radius is None
      else surgery_references.cagrad_direction(heads, radius)
    )
    np.testing.assert_allclose(got.gradient["head"], expected, atol=1e-6)
    found = [got.scalars[f"train/source_weight/{k}"] for k in range(K)]
    total = sum(w * value for w, (value, _) in zip(found, each, strict=True))
    np.testing.assert_allclose(got.loss, total, rtol=1e-12)

  def test_gradnorm_moves_the_weights_of_the_next_step(self):
    objective = self.objective(**GRADNORM)
    gradient = contract.make_gradient(objective)
    first = gradient(self.params, self.keyed(), objective.carry)
    weight = lambda found: [
      float(found.scalars[f"train/source_weight/{k}"]) for k in range(K)
    ]
    np.testing.assert_allclose(weight(first), 1 / K, rtol=1e-6)
    each = [
      jax.value_and_grad(self.source_loss)(self.params, self.rows_of(0, k))
      for k in range(K)
    ]
    norms = np.array([np.linalg.norm(g["head"]) for _, g in each])
    start = np.array([float(value) for value, _ in each])
    expected = surgery_references.gradnorm_weights(
      np.full(K, 1 / K), norms, start, start, 1.5, 0.1
    )
    other = jax.tree.map(lambda x: 1.5 * x, self.params)
    second = gradient(other, self.keyed(), first.carry)
    np.testing.assert_allclose(weight(second), expected, rtol=1e-5)
    np.testing.assert_allclose(second.carry.first_losses[0], start, rtol=1e-6)
    # Without the third, whose weight and first loss stay.
    self.batch["where"] = self.batch["where"] & (self.batch["source"] != 2)
    third = gradient(other, self.keyed(), first.carry)
    share = expected[:2] / expected[:2].sum()
    np.testing.assert_allclose(weight(third), [*share, 0.0], rtol=1e-5)
    self.assertEqual(third.carry.weights[0, 2], first.carry.weights[0, 2])

  def test_gradnorm_begins_with_the_first_loss_of_each_source(self):
    everyone = self.batch["where"]
    self.batch["where"] = everyone & (self.batch["source"] != 2)
    objective = self.objective(**GRADNORM)
    gradient = contract.make_gradient(objective)
    first = gradient(self.params, self.keyed(), objective.carry)
    np.testing.assert_array_equal(first.carry.begun, [[True, True, False]])
    self.batch["where"] = everyone
    other = jax.tree.map(lambda x: 1.5 * x, self.params)
    second = gradient(other, self.keyed(), first.carry)
    np.testing.assert_allclose(
      second.carry.first_losses[0, 2],
      self.source_loss(other, self.rows_of(0, 2)),
      rtol=1e-6,
    )
    self.assertTrue(bool(second.carry.begun.all()))

  def test_uniform_weights_are_the_stratified_mean(self):
    got = self.result(self.objective(weights="uniform", normalise=None))
    expected = np.mean(
      [self.source_loss(self.params, self.rows_of(0, k)) for k in range(K)]
    )
    np.testing.assert_allclose(got.loss, expected, rtol=1e-12)

  def test_fixed_weights_are_taken_as_they_are(self):
    fixed = (0.5, 0.2, 0.3)
    got = self.result(
      self.objective(weights="fixed", fixed=fixed, normalise=None)
    )
    expected = sum(
      w * self.source_loss(self.params, self.rows_of(0, k))
      for k, w in enumerate(fixed)
    )
    np.testing.assert_allclose(got.loss, expected, rtol=1e-12)

  def test_equal_sources_leave_plain_bradley_terry(self):
    half = jax.tree.map(lambda x: x[: B // 2], self.batch)
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), half)
    self.batch = twice | {
      "where": jnp.ones(B, bool),
      "row": jnp.arange(B, dtype=jnp.int32),
      "source": jnp.repeat(jnp.arange(2, dtype=jnp.int32), B // 2),
    }
    got = self.result(self.objective(num_sources=2))
    plain = bradley_terry.bradley_terry(
      apply, bradley_terry.PairLossConfig(**PLAIN), dropout=False
    )
    expected = self.result(plain)
    np.testing.assert_allclose(got.loss, expected.loss, rtol=1e-12)
    np.testing.assert_allclose(got.scalars["train/source_cosine/0-1"], 1.0)

  def test_a_missing_source_gets_no_weight(self):
    self.batch["source"] = jnp.where(
      self.batch["source"] == 1, 0, self.batch["source"]
    )
    kinds = (dict(), dict(weights="uniform", normalise=None), GRADNORM)
    for changes in kinds:
      got = self.result(self.objective(**changes))
      self.assertEqual(float(got.scalars["train/source_weight/1"]), 0.0)
      self.assertEqual(float(got.scalars["train/source_gradient_norm/1"]), 0.0)
      total = sum(
        float(got.scalars[f"train/source_weight/{k}"]) for k in (0, 2)
      )
      self.assertAlmostEqual(total, 1.0)

  def test_the_average_starts_at_the_first_gradient_and_skips_absentees(self):
    objective = self.objective(decay=0.9)
    gradient = contract.make_gradient(objective)
    first = gradient(self.params, self.keyed(), objective.carry)
    norms = np.linalg.norm(first.carry.gradients[0], axis=-1)
    for k in range(K):
      np.testing.assert_allclose(
        norms[k], first.scalars[f"train/source_gradient_norm/{k}"], rtol=1e-6
      )
    self.batch["where"] = self.batch["where"] & (self.batch["source"] != 2)
    other = jax.tree.map(lambda x: 1.5 * x, self.params)
    second = gradient(other, self.keyed(), first.carry)
    np.testing.assert_array_equal(
      second.carry.gradients[0, 2], first.carry.gradients[0, 2]
    )
    fresh = gradient(other, self.keyed(), objective.carry).carry.gradients
    np.testing.assert_allclose(
      second.carry.gradients[0, 0],
      0.9 * first.carry.gradients[0, 0] + 0.1 * fresh[0, 0],
      rtol=1e-6,
    )
    self.assertTrue(bool(second.carry.begun.all()))
    third = gradient(other, self.keyed(), second.carry)
    rows = np.array(third.carry.gradients[0, :2])  # the third is absent
    expected = min_norm_reference(
      rows / np.linalg.norm(rows, axis=1, keepdims=True)
    )
    for k in range(2):
      np.testing.assert_allclose(
        third.scalars[f"train/source_weight/{k}"], expected[k], atol=1e-5
      )

  @parameterized.parameters(
    *(dict(parts=p, decay=d) for p in (1, 2) for d in (None, 0.5)),
    dict(parts=2, **GRADNORM),
  )
  def test_any_layout_gives_the_same_two_steps(self, **changes):
    objective = self.objective(dropout=True, **changes)
    layouts.assert_same_descent(self, objective, self.params, self.batch)

  @parameterized.parameters(
    (dict(weights="mgda"), "weights must be one of"),
    (dict(normalise=None), "normalise goes with"),
    (dict(weights="uniform"), "normalise goes with"),
    (dict(decay=1.0), "decay must be in"),
    (dict(fixed=(1.0, 0.0, 0.0)), "fixed goes with"),
    (dict(weights="cagrad", normalise=None), "radius goes with"),
    (dict(radius=0.4), "radius goes with"),
    (dict(weights="pcgrad"), "normalise goes with"),
    (dict(weights="fixed", normalise=None, decay=0.5), "made of gradients"),
    (
      dict(weights="fixed", normalise=None, fixed=(0.5, 0.6, 0.0)),
      "add up to 1",
    ),
    (dict(GRADNORM, asymmetry=None), "asymmetry goes with"),
    (dict(step_size=0.1), "step_size goes with"),
    (dict(GRADNORM, step_size=0.0), "step_size must be > 0, got 0.0"),
    (dict(GRADNORM, decay=0.01), "made of gradients"),
    (dict(parts=0), "parts must be >= 1, got 0"),
  )
  def test_bad_values_are_named(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config(**changes)

  def test_parts_must_divide_the_batch(self):
    with self.assertRaisesRegex(ValueError, "got 3 and 16"):
      self.objective(parts=3)


if __name__ == "__main__":
  absltest.main()
