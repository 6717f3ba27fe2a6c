"""KTO over a batch against NumPy from the paper, in any layout."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import direct_preference as direct
from jaxalign.algorithms import unpaired_preference, update
from tests import transforms
from tests.algorithms import layouts

B, T, V = 16, 6, 11
BETA = 0.3
CONFIG = unpaired_preference.KtoConfig(
  "kto", beta=BETA, desirable_weight=1.5, undesirable_weight=0.7
)


class KtoTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    prompts = rng.integers(1, 3, size=(B, 2, 1))
    lengths = rng.integers(3, T + 1, size=(B, 2, 1))
    place = np.arange(T)
    where = np.ones(B, bool)
    where[5] = False
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(place < lengths),
      "response": jnp.array((place >= prompts) & (place < lengths)),
      "ref_log_probs": jnp.array(rng.normal(size=(B, 2)) - 1),
      "where": jnp.array(where),
      "chosen_prob": jnp.array(rng.choice([0.0, 0.25, 1.0], B)),
      "row": jnp.arange(B, dtype=jnp.int32),
    }
    self.params = {"table": jnp.array(rng.normal(size=V))}

  def read(self, params, batch):
    counted = direct.answer_tokens(batch)
    each = params["table"][batch["tokens"][..., 1:]]
    log_probs = jnp.sum(jnp.where(counted, each, 0.0), axis=2)
    return direct.Likelihood(log_probs[..., None], jnp.zeros((B, 2, 0)))

  def built(self, config=CONFIG):
    read = lambda params, batch: self.read(params, batch)._replace(
      features=jnp.zeros((*batch["where"].shape, 2, 0))
    )
    return unpaired_preference.kto(
      direct.pair_forward(read, config.reward), config
    )

  def expected(self, params, batch, config=CONFIG):
    """Equations 7 and 8 row by row, and the reference point."""
    table = np.asarray(params["table"])
    rows, others = [], []
    counted = np.flatnonzero(np.asarray(batch["where"]))
    for n in counted:
      of = []
      for side in range(2):
        tokens = np.asarray(batch["tokens"][n, side])[
          np.asarray(batch["response"][n, side])
        ]
        log_ratio = table[tokens].sum() - float(batch["ref_log_probs"][n, side])
        of.append(config.beta * log_ratio)
      rows.append(of[0])
      others.append(of[1])
    point = max(np.mean(others), 0.0)
    value = 0.0
    for n, reward in zip(counted, rows, strict=True):
      share = float(batch["chosen_prob"][n])
      sigmoid = 1 / (1 + np.exp(-(reward - point)))
      value += share * config.desirable_weight * (1 - sigmoid)
      value += (
        (1 - share)
        * config.undesirable_weight
        * (1 - 1 / (1 + np.exp(-(point - reward))))
      )
    return value / len(rows), point, np.array(rows), counted

  @parameterized.parameters(0.0, 30.0)  # the second puts the KL below 0
  def test_matches_the_paper_with_the_reference_point_constant(self, shift):
    batch = self.batch | {"ref_log_probs": self.batch["ref_log_probs"] + shift}
    got = jax.jit(update.make_gradient(self.built()))(self.params, batch, ())
    value, point, rows, counted = self.expected(self.params, batch)
    self.assertEqual(point == 0, shift > 0)
    np.testing.assert_allclose(got.loss, value, rtol=1e-12)
    np.testing.assert_allclose(got.scalars["train/kl"], point / BETA)
    # d l / d r = (−p λ_D + (1 − p) λ_U) σ'(r − z), nothing through z.
    share = np.asarray(batch["chosen_prob"])[counted]
    sigmoid = 1 / (1 + np.exp(-(rows - point)))
    slope = (-1.5 * share + 0.7 * (1 - share)) * sigmoid * (1 - sigmoid)
    table = np.zeros(V)
    for n, s in zip(counted, slope, strict=True):
      for token in np.asarray(batch["tokens"][n, 0])[
        np.asarray(batch["response"][n, 0])
      ]:
        table[token] += BETA * s / len(counted)
    np.testing.assert_allclose(got.gradient["table"], table, atol=1e-14)
    total, number = got.metrics["train/desirable_reward"]
    np.testing.assert_allclose(
      total / number, (rows * share).sum() / share.sum()
    )
    total, number = got.metrics["train/accuracy"]
    right = np.where(rows > point, share, 1 - share)
    np.testing.assert_allclose(total / number, right.mean())

  def test_garbage_under_the_mask_changes_nothing(self):
    gradient = jax.jit(update.make_gradient(self.built()))
    expected = gradient(self.params, self.batch, ())
    garbage = self.batch | {
      "ref_log_probs": self.batch["ref_log_probs"].at[5].set(jnp.nan),
      "chosen_prob": self.batch["chosen_prob"].at[5].set(0.5),
    }
    got = gradient(self.params, garbage, ())
    np.testing.assert_array_equal(got.loss, expected.loss)
    np.testing.assert_array_equal(
      got.gradient["table"], expected.gradient["table"]
    )

  def test_finite_to_second_order_and_without_rows(self):
    built = self.built()
    start = built.forward(self.params, self.batch)
    found, _, _ = built.context(built.statistics(start, self.batch), ())

    def value(table):
      outputs = built.forward({"table": table}, self.batch)
      return built.loss(outputs, self.batch, found)[0]

    transforms.assert_second_order(value, self.params["table"])
    for size in (1e4, -1e4):
      transforms.assert_finite(value, size * self.params["table"])
    none = self.batch | {"where": jnp.zeros(B, bool)}
    got = jax.jit(update.make_gradient(built))(self.params, none, ())
    self.assertEqual(float(got.loss), 0.0)
    np.testing.assert_array_equal(got.gradient["table"], 0.0)

  def test_any_layout_gives_the_same_two_steps(self):
    layouts.assert_same_descent(self, self.built(), self.params, self.batch)

  @parameterized.parameters(
    (dict(beta=0.0), "beta must be > 0"),
    (dict(desirable_weight=-1.0), "desirable_weight must be >= 0"),
    (dict(undesirable_weight=-1.0), "undesirable_weight must be >= 0"),
  )
  def test_bad_values_are_named(self, given, message):
    with self.assertRaisesRegex(ValueError, message):
      unpaired_preference.KtoConfig("kto", **given)


if __name__ == "__main__":
  absltest.main()
