"""Two views and their contrast: the paper's loss, one number in any layout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import bradley_terry, contrastive
from jaxalign.algorithms import update as contract
from jaxalign.losses.feature_queue import FeatureQueue
from tests import transforms
from tests.algorithms import layouts

B, T, V, D, K = 16, 5, 11, 8, 3
PLAIN = bradley_terry.PairLossConfig("hard", 0.0, None, 0.0)
SIMCSE = dict(loss="simcse")
SWAV = dict(loss="swav", num_prototypes=K, temperature=0.1, weight=0.3)


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def apply(params, tokens, mask, *, dropout_keys):
  """A linear head on the mean embedding of attended tokens."""
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  features = jnp.tanh(values.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None])
  draw = lambda k: jax.random.bernoulli(k, 0.8, (D,))
  features = jnp.where(jax.vmap(draw)(dropout_keys), features, 0.0)
  return Output((features @ params["head"])[:, None], features)


def config(**changes):
  return contrastive.ContrastiveConfig(**{"name": "contrastive", **changes})


def objective(**changes):
  return contrastive.contrastive(
    apply, config(**changes), PLAIN, batch_size=B, num_features=D, dropout=True
  )


def gradient_of(built):
  return jax.jit(contract.make_gradient(built))


def unit(x):
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def simcse(first, second, temperature=0.05):
  """Equation 9, row by row."""
  logits = unit(first) @ unit(second).T / temperature
  return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.diag(logits))


def swav(first, second, centres, queue=((), ()), temperature=0.1, epsilon=0.05):
  """Equations 7 and 8, Sinkhorn-Knopp in plain numbers."""
  centres = unit(centres)  # which float32 left a little off

  def assigned(rows, earlier):
    rows = jnp.concatenate([rows, *([earlier] if len(earlier) else [])])
    q = jnp.exp(unit(rows) @ centres.T / epsilon)
    for _ in range(3):
      q = q / q.sum(0, keepdims=True)
      q = q / q.sum(1, keepdims=True)
    return jax.lax.stop_gradient(q[: len(first)])

  log_p = lambda rows: jax.nn.log_softmax(unit(rows) @ centres.T / temperature)
  swapped = assigned(second, queue[1]) * log_p(first)
  swapped += assigned(first, queue[0]) * log_p(second)
  return -jnp.mean(swapped.sum(1))


class ContrastiveTest(parameterized.TestCase):
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
      "row": jnp.arange(B, dtype=jnp.int32),
    }

  def keyed(self):
    key = jax.random.fold_in(jax.random.key(2), 0)
    return self.batch | {"key": contract.row_keys(key, self.batch["row"])}

  def views(self, params):
    """Rewards [n, 2, 2] and features [n, 2, 2, D] of the rows that count."""
    keys = jax.vmap(jax.random.split, (0, None))(self.keyed()["key"], 4)
    rewards, features = [], []
    for view in range(2):
      for side in range(2):
        output = apply(
          params,
          self.batch["tokens"][:, side],
          self.batch["mask"][:, side],
          dropout_keys=keys[:, 2 * view + side],
        )
        rewards.append(output.rewards[:, 0])
        features.append(output.features)
    counted = np.array(self.batch["where"])
    shaped = lambda x, *d: jnp.stack(x, 1).reshape(B, 2, 2, *d)[counted]
    return shaped(rewards), shaped(features, D)

  def reference(self, params, made, centres=None, queue=((), ())):
    rewards, features = self.views(params)
    gaps = rewards[:, :, 0] - rewards[:, :, 1]
    chosen, rejected = features[:, :, 0], features[:, :, 1]
    if made.instances == "differences":
      chosen, rejected = chosen - rejected, rejected - chosen
    rows = jnp.concatenate([chosen, rejected])
    contrast = (
      simcse(rows[:, 0], rows[:, 1])
      if made.loss == "simcse"
      else swav(rows[:, 0], rows[:, 1], centres, queue)
    )
    return -jnp.mean(jax.nn.log_sigmoid(gaps)) + made.weight * contrast

  @parameterized.product(
    loss=(SIMCSE, SWAV), instances=("pairs", "differences")
  )
  def test_loss_and_gradient_follow_the_paper(self, loss, instances):
    made = config(**loss, instances=instances)
    built = objective(**loss, instances=instances)
    gradient = gradient_of(built)
    got = gradient(self.params, self.keyed(), built.carry)
    centres = built.carry.centres.astype(float) if loss is SWAV else None
    value, expected = jax.jit(
      jax.value_and_grad(lambda p: self.reference(p, made, centres))
    )(self.params)
    np.testing.assert_allclose(got.loss, value, rtol=1e-12)
    for name, leaf in expected.items():
      np.testing.assert_allclose(got.gradient[name], leaf, atol=1e-12)

  def test_prototypes_follow_their_gradient_on_the_sphere(self):
    made, built = config(**SWAV), objective(**SWAV)
    carry = gradient_of(built)(self.params, self.keyed(), built.carry).carry
    centres = built.carry.centres.astype(float)
    slopes = jax.jit(jax.grad(lambda c: self.reference(self.params, made, c)))(
      centres
    )
    # Adam's first step is the sign of the gradient.
    moved = unit(centres - made.prototype_learning_rate * jnp.sign(slopes))
    np.testing.assert_allclose(carry.centres, moved, atol=1e-6)
    np.testing.assert_allclose(jnp.linalg.norm(carry.centres, axis=1), 1, 1e-6)

  def test_the_queue_takes_part_in_the_assignments(self):
    options = SWAV | dict(queue_size=40)
    made, built = config(**options), objective(**options)
    gradient = gradient_of(built)
    first = gradient(self.params, self.keyed(), built.carry)
    queue = first.carry.queue
    self.assertEqual(int(queue.where.sum()), 30)  # 15 pairs count
    other = jax.tree.map(lambda x: 1.5 * x[::-1], self.params)
    second = gradient(other, self.keyed(), first.carry)
    counted = np.array(queue.where)
    value = self.reference(
      other,
      made,
      first.carry.centres.astype(float),
      (queue.view_a[counted], queue.view_b[counted]),
    )
    np.testing.assert_allclose(second.loss, value, rtol=1e-6)
    emptied = first.carry._replace(
      queue=FeatureQueue(*queue[:2], jnp.zeros_like(queue.where))
    )
    self.assertNotAlmostEqual(
      float(gradient(other, self.keyed(), emptied).loss), float(second.loss), 4
    )

  def test_weight_zero_leaves_bradley_terry_on_both_views(self):
    got = gradient_of(objective(weight=0.0))(self.params, self.keyed(), ())
    rewards, _ = self.views(self.params)
    gaps = rewards[:, :, 0] - rewards[:, :, 1]
    expected = -jnp.mean(jax.nn.log_sigmoid(gaps))
    np.testing.assert_allclose(got.loss, expected, rtol=1e-12)
    total, count = got.metrics["train/nll"]
    np.testing.assert_allclose(total / count, expected, rtol=1e-12)
    self.assertEqual(float(count), 30)

  def test_a_row_that_does_not_count_changes_nothing(self):
    built = objective(**SWAV)
    gradient = gradient_of(built)
    expected = gradient(self.params, self.keyed(), built.carry)
    self.batch["tokens"] = self.batch["tokens"].at[5].set(0)
    got = gradient(self.params, self.keyed(), built.carry)
    transforms.assert_identical(got, expected)

  @parameterized.parameters(
    (SIMCSE,), (SWAV | dict(instances="differences", queue_size=8),)
  )
  def test_any_layout_gives_the_same_two_steps(self, changes):
    built = objective(**changes)
    layouts.assert_same_descent(self, built, self.params, self.batch)

  @parameterized.parameters(
    (dict(loss="moco"), "loss must be one of"),
    (dict(instances="prompts"), "instances must be one of"),
    (dict(weight=-1.0), "weight must be >= 0"),
    (dict(temperature=0.0), "temperature must be > 0"),
    (dict(num_iters=0), "num_iters must be >= 1"),
    (dict(loss="swav"), "num_prototypes must be >= 2 with loss='swav'"),
    (dict(num_prototypes=3), "and None with 'simcse', got 3"),
    (dict(queue_size=4), "queue_size must be >= 0 and goes with loss='swav'"),
  )
  def test_bad_values_are_named(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config(**changes)

  def test_without_dropout_there_is_one_view(self):
    with self.assertRaisesRegex(ValueError, r"model.dropout must be > 0"):
      contrastive.contrastive(
        apply, config(), PLAIN, batch_size=B, num_features=D, dropout=False
      )


if __name__ == "__main__":
  absltest.main()
