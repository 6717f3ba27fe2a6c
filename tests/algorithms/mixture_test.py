"""The M-step against NumPy, and one number in any layout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import mixture
from jaxalign.algorithms import update as contract
from tests.algorithms import layouts

B, T, V, D, K, U = 16, 5, 11, 3, 2, 6


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def apply(params, tokens, mask, *, dropout_keys=None):
  """K linear heads on the mean embedding of attended tokens."""
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  features = values.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
  if dropout_keys is not None:
    draw = lambda k: jax.random.bernoulli(k, 0.8, (D,))
    features = jnp.where(jax.vmap(draw)(dropout_keys), features, 0.0)
  return Output(features @ params["head"], features)


def config(**changes):
  base = dict(name="mixture", num_components=K, num_users=U, steps_per_round=1)
  return mixture.MixtureConfig(**base | changes)


def log_sigmoid(x):
  return -np.logaddexp(0, -x)


class MStepTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.params = {
      "table": jnp.array(rng.normal(size=(V, D))),
      "head": jnp.array(rng.normal(size=(D, K))),
    }
    lengths = rng.integers(1, T + 1, size=(B, 2))
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(np.arange(T) < lengths[..., None]),
      "where": jnp.array([True] * 5 + [False] + [True] * 10),
      "annotator": jnp.array(rng.integers(-1, U, B), jnp.int32),
      "row": jnp.arange(B, dtype=jnp.int32),
    }
    shares = rng.dirichlet(np.ones(K), U)
    self.membership = mixture.start(jnp.array(shares))

  def objective(self, dropout=False):
    return mixture.mixture(apply, config(), dropout=dropout)._replace(
      carry=self.membership
    )

  def gradient(self, batch=None, **options):
    compute = contract.make_gradient(self.objective(), **options)
    return jax.jit(compute)(
      self.params, self.batch if batch is None else batch, self.membership
    )

  def test_loss_and_metrics(self):
    b = jax.tree.map(np.asarray, self.batch)
    values = np.where(
      b["mask"][..., None], np.asarray(self.params["table"])[b["tokens"]], 0
    )
    features = values.sum(2) / b["mask"].sum(-1)[..., None]
    rewards = features @ np.asarray(self.params["head"])
    gaps = (rewards[:, 0] - rewards[:, 1])[b["where"]]
    rows = np.vstack(  # nobody, at index −1, has the weights
      [self.membership.responsibilities, self.membership.weights]
    )[b["annotator"][b["where"]]]
    expected = -(rows * log_sigmoid(gaps)).sum(1).mean()
    got = self.gradient()
    np.testing.assert_allclose(got.loss, expected, rtol=1e-12)
    mean = lambda name: np.divide(*got.metrics[name])
    np.testing.assert_allclose(mean("train/nll"), expected, rtol=1e-12)
    np.testing.assert_allclose(
      mean("train/accuracy"),
      (rows * (np.sign(gaps) + 1) / 2).sum(1).mean(),  # there is a tie
      rtol=1e-12,
    )
    np.testing.assert_allclose(
      mean("train/nll/component_1"),
      -(rows * log_sigmoid(gaps))[:, 1].sum() / rows[:, 1].sum(),
      rtol=1e-12,
    )
    self.assertTrue(np.any(b["annotator"][b["where"]] < 0))

  def test_rows_that_do_not_count_change_nothing(self):
    where = self.batch["where"]
    garbage = self.batch | {
      "tokens": jnp.where(
        where[:, None, None], self.batch["tokens"], V - 1
      ).astype(jnp.int32),
      "annotator": jnp.where(where, self.batch["annotator"], 3).astype(
        jnp.int32
      ),
    }
    np.testing.assert_allclose(
      self.gradient(garbage).gradient["head"],
      self.gradient().gradient["head"],
      rtol=1e-12,
    )

  def test_any_layout_gives_the_same_two_steps(self):
    objective = self.objective(dropout=True)
    layouts.assert_same_descent(self, objective, self.params, self.batch)

  @parameterized.parameters(
    (dict(assignment="fuzzy"), "assignment must be one of"),
    (dict(weights="fixed"), "weights must be one of"),
    (dict(num_components=0), "num_components must be >= 1, got 0"),
    (dict(num_users=1), "num_users must be >= num_components, got 1 and 2"),
    (dict(assignment="oracle", restarts=2), "restarts must be 1.*got 2"),
  )
  def test_bad_values_are_named(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config(**changes)


if __name__ == "__main__":
  absltest.main()
