"""Label distributions through the two-phase update, against NumPy."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax.sharding import NamedSharding, PartitionSpec

from jaxalign import losses
from jaxalign.algorithms import dprm, update
from jaxalign.runtime.distributed import mesh as meshes
from tests import parallel_modes, references

B, T, V, D = 8, 4, 7, 6
WHERE = ~np.isin(np.arange(B), (2, 7))
UTILITIES = np.array([1.0, 0.5, -1.0, -1.0, -1.5, -3.0])
# Penalties of help and of harm, label by label.
HELP, HARM = np.array([0, 0.5, 2, 0, 0.5, 2]), np.array([0, 0, 0, 2, 2, 2])
COST = np.abs(HELP[:, None] - HELP) + np.abs(HARM[:, None] - HARM)


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def apply(params, tokens, mask, *, dropout_keys=None):
  """One output per label, each a mean over attended tokens of its table."""
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  mean = values.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
  return Output(mean, mean)


def config(**changes) -> dprm.DprmConfig:
  return dprm.DprmConfig("dprm", **changes)


LINE = config(loss="line")  # which compiles in a moment


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def expected_loss(kind, logits, target):
  """The loss of one response from its definition."""
  probs = softmax(logits)
  entropy = -np.sum(target * np.log(probs))
  if kind == "cross_entropy":
    return entropy
  if kind == "line":
    order = np.argsort(UTILITIES, kind="stable")
    gaps = np.diff(UTILITIES[order])
    ahead = np.cumsum(probs[order] - target[order])[:-1]
    return np.sum(gaps * np.abs(ahead)) + 0.1 * entropy
  cost = lambda a, b: references.sinkhorn(a, b, COST, 0.2, 1000)[2]
  value = cost(probs, target)
  if kind == "debiased":
    value -= (cost(probs, probs) + cost(target, target)) / 2
  return value + 0.1 * entropy


class DprmTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.params = {"table": jnp.array(rng.normal(size=(V, D)))}
    lengths = rng.integers(1, T + 1, size=(B, 2))
    self.labels = rng.dirichlet(np.full(D, 0.5), size=(B, 2))
    self.labelled = rng.random((B, 2)) < 0.7
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(np.arange(T) < lengths[..., None]),
      "where": jnp.array(WHERE),
      "labels": jnp.array(self.labels),
      "labelled": jnp.array(self.labelled),
      "row": jnp.arange(B, dtype=jnp.int32),
    }

  @functools.cached_property
  def plain(self):
    return self.gradient()

  def logits(self):
    mask = np.array(self.batch["mask"])[..., None]
    values = np.array(self.params["table"])[np.array(self.batch["tokens"])]
    return np.where(mask, values, 0).sum(2) / mask.sum(2)

  def gradient(self, batch=None, settings=None, **options):
    objective = dprm.dprm(apply, settings or LINE, dropout=False)
    compute = update.make_gradient(objective, **options)
    return jax.jit(compute)(self.params, batch or self.batch, ())

  @parameterized.parameters(*dprm.LOSSES)
  def test_losses_of_responses(self, kind):
    logits, target = self.logits()[:4].reshape(8, D), self.labels[:4]
    settings = config(loss=kind)
    got = jax.jit(lambda *args: dprm.label_losses(*args, settings))(
      logits, target.reshape(8, D)
    )
    expected = [
      expected_loss(kind, *row)
      for row in zip(logits, target.reshape(8, D), strict=True)
    ]
    np.testing.assert_allclose(got, expected, rtol=1e-4)

  def test_the_loss_is_the_mean_over_labelled_responses(self):
    counted = self.labelled & WHERE[:, None]
    expected = [
      expected_loss("line", *row)
      for row in zip(self.logits()[counted], self.labels[counted], strict=True)
    ]
    np.testing.assert_allclose(self.plain.loss, np.mean(expected), rtol=1e-10)

  def test_metrics(self):
    got = {k: t / n for k, (t, n) in self.plain.metrics.items()}
    counted = self.labelled & WHERE[:, None]
    probs, target = softmax(self.logits()), self.labels
    rewards = (probs @ UTILITIES)[WHERE]
    gaps = rewards[:, 0] - rewards[:, 1]
    expected = {
      "train/nll": np.mean(np.log1p(np.exp(-gaps))),
      "train/accuracy": np.mean(gaps > 0),
      "train/label_nll": -np.sum(target * np.log(probs), -1)[counted].mean(),
      "train/top1": np.mean(
        probs.argmax(-1) == target.argmax(-1), where=counted
      ),
      "train/utility_error": np.mean(
        np.abs((probs - target) @ UTILITIES), where=counted
      ),
      "train/labelled": counted.sum() / (2 * WHERE.sum()),
    }
    for name, value in expected.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-10, err_msg=name)

  def test_a_response_beside_itself_is_learned_from_once_and_no_pair(self):
    twins = {
      k: self.batch[k].at[:4, 1].set(self.batch[k][:4, 0])
      for k in ("tokens", "mask")
    }
    labelled = self.labelled.copy()
    labelled[:4] = True, False
    batch = self.batch | twins | {"labelled": jnp.array(labelled)}
    got = self.gradient(batch)
    # Beside any other response it is the same.
    other = self.gradient(self.batch | {"labelled": jnp.array(labelled)})
    np.testing.assert_allclose(
      got.gradient["table"], other.gradient["table"], rtol=1e-10, atol=1e-14
    )
    np.testing.assert_allclose(got.loss, other.loss, rtol=1e-12)
    _, count = got.metrics["train/accuracy"]
    self.assertEqual(count, WHERE[4:].sum())
    total, count = got.metrics["train/nll"]
    rewards = (softmax(self.logits()) @ UTILITIES)[4:][WHERE[4:]]
    np.testing.assert_allclose(
      total / count,
      np.mean(np.log1p(np.exp(rewards[:, 1] - rewards[:, 0]))),
      rtol=1e-10,
    )

  def test_plain_metrics_take_the_reward_of_the_readout(self):
    settings = config(loss="line", risk="mean_std", kappa=0.5)
    total, count = self.gradient(settings=settings).metrics["train/reward_mean"]
    probs = softmax(self.logits())[WHERE]
    mean = probs @ UTILITIES
    deviation = np.sqrt(probs @ UTILITIES**2 - mean**2)
    np.testing.assert_allclose(
      total / count, np.mean(mean - 0.5 * deviation), rtol=1e-10
    )

  def test_layout_changes_nothing(self):
    expected = self.plain
    objective = dprm.dprm(apply, LINE, dropout=False)
    make = lambda **options: update.make_gradient(objective, **options)
    parallel_modes.need_devices(8)
    mesh = meshes.make_mesh(meshes.MeshConfig(4, 2, 1))
    everywhere = NamedSharding(mesh, PartitionSpec())
    rows = meshes.batch_sharding(mesh)
    split = {k: v.reshape(8, -1, *v.shape[1:]) for k, v in self.batch.items()}
    pmap = jax.pmap(
      make(axis_name="data"), axis_name="data", in_axes=(None, 0, None)
    )
    found = {
      "accumulation 4": self.gradient(accumulation=4),
      "sharded": jax.jit(
        make(accumulation=2),
        in_shardings=(everywhere, rows, everywhere),
        out_shardings=everywhere,
      )(self.params, self.batch, ()),
      "pmap": jax.tree.map(lambda x: x[0], pmap(self.params, split, ())),
    }
    for name, got in found.items():
      np.testing.assert_allclose(
        got.gradient["table"],
        expected.gradient["table"],
        rtol=1e-8,
        atol=1e-12,
        err_msg=name,
      )
      np.testing.assert_allclose(got.loss, expected.loss, rtol=1e-10)

  def test_what_does_not_count_changes_nothing(self):
    garbage = np.where(WHERE[:, None, None], self.batch["tokens"], V - 1)
    counted = self.labelled & WHERE[:, None]
    changed = self.batch | {
      "tokens": jnp.array(garbage, jnp.int32),
      "labels": jnp.array(np.where(counted[..., None], self.labels, np.nan)),
    }
    np.testing.assert_array_equal(
      self.gradient(changed).gradient["table"],
      self.plain.gradient["table"],
    )

  def test_a_batch_without_labels_moves_nothing(self):
    nothing = self.batch | {"labelled": jnp.zeros((B, 2), bool)}
    got = self.gradient(nothing)
    self.assertEqual(got.loss, 0)
    np.testing.assert_array_equal(got.gradient["table"], 0)

  def test_label_sets(self):
    published = dprm.LabelsConfig().label_set()
    np.testing.assert_array_equal(published.utilities, UTILITIES)
    np.testing.assert_array_equal(published.cost, COST)
    stars = dprm.LabelsConfig(
      ("one", "two", "five"), utilities=(1, 2, 5), penalties=None
    )
    np.testing.assert_array_equal(
      stars.label_set().cost, [[0, 1, 4], [1, 0, 3], [4, 3, 0]]
    )
    own = dprm.LabelsConfig(
      ("a", "b"),
      utilities=(0.0, 1.0),
      cost=((0.0, 7.0), (7.0, 0.0)),
      penalties=None,
    )
    np.testing.assert_array_equal(own.label_set().cost, [[0, 7], [7, 0]])

  @parameterized.parameters(
    ({"names": ("a", "a")}, "two different labels or more"),
    ({"utilities": (1.0,) * 6}, "exactly one of utilities and penalties"),
    ({"penalties": None}, "exactly one of utilities and penalties"),
    ({"cost": ((0.0,) * 6,) * 6}, "cost must be None with penalties"),
    ({"penalties": ((0.0, 1.0),)}, "one label per name, got 2 for 6"),
    (
      {"penalties": None, "utilities": (1.0, 2.0)},
      "utilities must be one per name, got 2 for 6",
    ),
    (
      {
        "names": ("a", "b"),
        "penalties": None,
        "utilities": (0.0, 1.0),
        "cost": ((0.0, 1.0), (2.0, 0.0)),
      },
      "cost must be symmetric",
    ),
    (
      {
        "names": ("a", "b"),
        "penalties": None,
        "utilities": (0.0, 1.0),
        "cost": ((0.0, 1.0),),
      },
      "cost must be 2 rows of 2",
    ),
  )
  def test_refuses_labels(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      dprm.LabelsConfig(**changes)

  @parameterized.parameters(
    ({"loss": "hinge"}, "loss must be one of cross_entropy, debiased, line"),
    ({"epsilon": 0.0}, "epsilon must be > 0 and num_iters >= 1, got 0.0"),
    ({"cross_entropy_weight": -1.0}, "cross_entropy_weight must be >= 0"),
    ({"decay": 1.5}, r"decay must be in \[0, 1\], got 1.5"),
    ({"smoothing": 0.6}, r"smoothing must be in \[0, 0.5\], got 0.6"),
    ({"prior": (0.5, 0.5)}, "prior must be 6 shares that sum to 1"),
    ({"risk": "cvar"}, "alpha goes with risk='cvar' alone, got None"),
  )
  def test_refuses_settings(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config(**changes)

  def test_the_readout_has_the_utilities(self):
    self.assertEqual(config().readout().utilities, tuple(UTILITIES))
    self.assertIsInstance(config().labels.label_set(), losses.LabelSet)


if __name__ == "__main__":
  absltest.main()
