"""Targets of every policy against a loop over pairs, and through the update."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, denoised, update
from tests.algorithms.mean_variance_test import WHERE, B, T, V, apply

N = 40
FRACTION, SMOOTHING = 0.25, 0.3


def settings(policy, **changes):
  ranked = changes.get("choose") in denoised.RANKED
  by_default = policy in ("drop", *denoised.FLIPS) and "choose" not in changes
  if ranked or by_default:
    changes = {"fraction": FRACTION, **changes}
  if policy in denoised.SMOOTHS:
    changes = {"smoothing": SMOOTHING, **changes}
  return denoised.DenoiseConfig(policy, **changes)


def picked(choose, strength):
  """Row numbers that a policy acts on."""
  order = sorted(range(N), key=lambda i: (strength[i], i))
  falling = sorted(range(N), key=lambda i: (-strength[i], i))
  return {
    "weakest": order[: N // 4],
    "strongest": falling[: N // 4],
    "negative": [i for i in range(N) if strength[i] < 0],
    "all": range(N),
  }[choose]


def expected(policy, strength, prob, choose=None):
  """(label, margin, learned from) of each pair, one at a time."""
  if choose is None:
    choose = "negative" if policy in denoised.SMOOTHS else "weakest"
  chosen = picked(choose, strength)
  rows = []
  for i in range(N):
    label, margin, used = prob[i], 0.0, True
    if policy in ("margin", "flip_margin", "smooth_margin"):
      margin = strength[i]
    if policy in ("flip", "flip_margin") and i in chosen:
      label = 1 - label
    if policy in ("smooth", "smooth_margin") and i in chosen:
      label = (1 - SMOOTHING) * label + SMOOTHING * (1 - label)
    if policy == "drop":
      used = i not in chosen
    rows.append((label, margin, used))
  return [np.array(column) for column in zip(*rows, strict=True)]


class TargetsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.strength = rng.normal(0.3, 1, N)
    self.strength[7] = self.strength[8] = np.sort(self.strength)[N // 4 - 1]
    self.prob = rng.choice([0.5, 0.8, 1.0], N)

  @parameterized.parameters(*denoised.POLICIES)
  def test_targets(self, policy):
    label, margin, used = expected(policy, self.strength, self.prob)
    config = settings(policy)
    given = jnp.array(self.strength)
    got = denoised.targets(config, given, chosen_prob=jnp.array(self.prob))
    np.testing.assert_allclose(got.chosen_prob, label)
    np.testing.assert_allclose(got.margin, margin)
    np.testing.assert_array_equal(denoised.kept(config, given), used)

  @parameterized.product(
    policy=("drop", *denoised.FLIPS, *denoised.SMOOTHS),
    choose=("weakest", "strongest", "negative", "all"),
  )
  def test_which_pairs(self, policy, choose):
    label, margin, used = expected(policy, self.strength, self.prob, choose)
    config = settings(policy, choose=choose)
    given = jnp.array(self.strength)
    got = denoised.targets(config, given, chosen_prob=jnp.array(self.prob))
    np.testing.assert_allclose(got.chosen_prob, label)
    np.testing.assert_allclose(got.margin, margin)
    np.testing.assert_array_equal(denoised.kept(config, given), used)

  def test_drawn_flips_are_those_of_the_seed(self):
    given = jnp.array(self.strength)
    for seed in (0, 3):
      config = settings("flip", choose="drawn", seed=seed)
      got = denoised.targets(config, given, chosen_prob=jnp.ones(N))
      drawn = losses.drawn_flip_mask(jax.random.key(seed), given)
      np.testing.assert_array_equal(got.chosen_prob, np.where(drawn, 0, 1))

  def test_a_slice_is_learned_from_alone_and_shares_stay_those_of_all(self):
    given, order = jnp.array(self.strength), np.argsort(self.strength)
    second = dict(low=0.1, high=0.2)
    for config in (
      settings("keep", **second),
      settings("flip", fraction=0.2, **second),
    ):
      at = np.flatnonzero(np.asarray(denoised.kept(config, given)))
      self.assertEqual(set(at), set(order[N // 10 : N // 5]))
      got = denoised.targets(config, given, chosen_prob=jnp.ones(N))
      flips = config.policy == "flip"
      np.testing.assert_array_equal(got.chosen_prob[at], 0 if flips else 1)
    dropped = denoised.kept(settings("drop", high=0.5), given)
    self.assertEqual(
      set(np.flatnonzero(np.asarray(dropped))), set(order[N // 4 : N // 2])
    )

  @parameterized.parameters(*denoised.MARGINS)
  def test_margins_have_scale_shape_and_cap(self, policy):
    shaped = dict(margin_shape="tanh", margin_scale=2.0, margin_cap=0.9)
    given = jnp.array(self.strength)
    got = denoised.targets(
      settings(policy, **shaped), given, chosen_prob=jnp.ones(N)
    )
    np.testing.assert_allclose(
      got.margin, np.clip(2 * np.tanh(self.strength), -0.9, 0.9)
    )
    plain = denoised.targets(settings(policy), given, chosen_prob=jnp.ones(N))
    np.testing.assert_array_equal(got.chosen_prob, plain.chosen_prob)

  def test_a_flipped_pair_swapped_has_minus_its_strength_for_margin(self):
    strength = jnp.array(self.strength)
    got = denoised.targets(
      settings("flip_margin"), strength, chosen_prob=jnp.ones(N)
    )
    flipped = np.flatnonzero(np.asarray(got.chosen_prob) == 0)
    self.assertLen(flipped, N // 4)
    chosen, rejected = jnp.array(0.7), jnp.array(-0.4)
    for i in flipped:
      ours = losses.soft_preference_loss(
        chosen, rejected, chosen_prob=got.chosen_prob[i], margin=got.margin[i]
      )
      swapped = losses.bradley_terry_loss(rejected, chosen, margin=-strength[i])
      np.testing.assert_allclose(ours, swapped, rtol=1e-12)

  @parameterized.parameters(
    (dict(policy="swap"), "policy must be one of"),
    (dict(policy="flip", fraction=1.5), "fraction must be in"),
    (dict(policy="smooth", smoothing=0.6), "smoothing must be in"),
    (dict(policy="margin", fraction=0.2), "fraction goes with choose="),
    (
      dict(policy="flip", choose="negative", fraction=0.2),
      "fraction goes with choose='weakest' or 'strongest', got 0.2",
    ),
    (dict(policy="flip", choose="some"), "choose must be one of"),
    (dict(policy="keep", choose="all"), "choose goes with flip, drop or"),
    (dict(policy="flip", seed=1), "seed goes with choose='drawn'"),
    (dict(policy="flip", low=0.3, high=0.3), "0 <= low < high <= 1"),
    (dict(policy="flip", margin_cap=1.0), "margin_cap goes with margin"),
    (dict(policy="margin", margin_cap=0.0), "margin_cap must be > 0"),
    (dict(policy="margin", margin_shape="step"), "margin_shape must be one"),
    (dict(policy="flip", smoothing=0.1), "smoothing goes with smooth"),
  )
  def test_refuses(self, given, message):
    with self.assertRaisesRegex(ValueError, message):
      denoised.DenoiseConfig(**given)
    with self.assertRaisesRegex(ValueError, message):
      denoised.DenoisedConfig(name="denoised", **given)

  def test_the_recipe_is_the_same_policy(self):
    recipe = denoised.DenoisedConfig(
      name="denoised", policy="smooth", smoothing=0.3
    )
    self.assertEqual(
      recipe.denoise(), denoised.DenoiseConfig("smooth", smoothing=0.3)
    )

  @parameterized.parameters((0.1, None), (0.0, "column"))
  def test_refuses_a_loss_that_sets_labels_or_margins(self, rate, margin):
    with self.assertRaisesRegex(ValueError, "sets labels and margins"):
      bradley_terry.PairLossConfig(
        "hard", rate, margin, 0.0, denoised.DenoiseConfig("flip")
      )


class UpdateTest(parameterized.TestCase):
  """The margin stands inside both terms, however the batch is laid out."""

  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(1)
    self.params = {"table": jnp.array(rng.normal(size=(V, 1)))}
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.ones((B, 2, T), jnp.bool_),
      "where": jnp.array(WHERE),
      "row": jnp.arange(B, dtype=jnp.int32),
      "chosen_prob": jnp.array(rng.uniform(size=B)),
      "margin": jnp.array(rng.normal(size=B)),
    }
    loss = bradley_terry.PairLossConfig(
      "hard", 0.0, None, 0.0, denoised.DenoiseConfig("smooth_margin")
    )
    self.objective = bradley_terry.bradley_terry(apply, loss, dropout=False)

  def gradient(self, **options):
    compute = update.make_gradient(self.objective, **options)
    return jax.jit(compute)(self.params, self.batch, ())

  def test_loss(self):
    outputs = self.objective.forward(self.params, self.batch)
    gap = np.asarray(outputs.chosen - outputs.rejected)[:, 0]
    gap = gap - np.asarray(self.batch["margin"])
    prob = np.asarray(self.batch["chosen_prob"])
    each = prob * np.log1p(np.exp(-gap)) + (1 - prob) * np.log1p(np.exp(gap))
    got = self.gradient()
    np.testing.assert_allclose(got.loss, each[WHERE].mean(), rtol=1e-12)
    total, count = got.metrics["train/nll"]
    plain = np.log1p(np.exp(-gap - np.asarray(self.batch["margin"])))
    np.testing.assert_allclose(total / count, plain[WHERE].mean(), rtol=1e-12)

  def test_accumulation_changes_nothing(self):
    np.testing.assert_allclose(
      self.gradient(accumulation=4).gradient["table"],
      self.gradient().gradient["table"],
      rtol=1e-10,
    )


if __name__ == "__main__":
  absltest.main()
