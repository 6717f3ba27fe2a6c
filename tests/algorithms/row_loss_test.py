"""Rows under couplings against NumPy: λ, loss and gradient, in any layout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import (
  bradley_terry,
  denoised,
  dprm,
  group_dro,
  mean_variance,
  mixture,
  more,
  personal_recipe,
  row_loss,
  update,
)
from tests.algorithms import layouts
from tests.algorithms.more_test import min_norm_reference

B, T, V, D, U, S = 16, 5, 11, 3, 6, 3
LABELS = dprm.LabelsConfig(
  names=("bad", "fair", "good"), utilities=(-1.0, 0.5, 1.0), penalties=None
)
DENOISED = bradley_terry.PairLossConfig(
  "hard", 0.0, None, 0.0, denoised.DenoiseConfig("smooth_margin")
)
VOTES = bradley_terry.PairLossConfig("votes", 0.0, None, 0.0)
LATENT = mixture.MixtureConfig(
  "mixture", num_components=2, num_users=U, steps_per_round=1
)
PERSONAL = personal_recipe.PersonalRecipeConfig(
  "personal", rank=2, num_users=U, pull=0.3
)
ROWS = {
  "pairs": lambda: bradley_terry.pair_rows(DENOISED),
  "mixture": lambda: mixture.mixture_rows(LATENT, VOTES),
  "labels": lambda: dprm.label_rows(
    dprm.DprmConfig("dprm", LABELS, loss="cross_entropy")
  ),
  "normal": lambda: mean_variance.normal_rows(
    mean_variance.MeanVarianceConfig("mean_variance")
  ),
  "personal": lambda: personal_recipe.personal_rows(PERSONAL, VOTES),
}


class Output(NamedTuple):
  rewards: jax.Array
  features: jax.Array


def apply(params, tokens, mask, *, dropout_keys=None):
  """H linear heads on the mean embedding of attended tokens."""
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  features = values.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None]
  if dropout_keys is not None:
    draw = lambda k: jax.random.bernoulli(k, 0.8, (D,))
    features = jnp.where(jax.vmap(draw)(dropout_keys), features, 0.0)
  return Output(features @ params["head"], features)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def soft_loss(gap, prob):
  """Cross-entropy of a gap against a label, and its slope in the gap."""
  loss = prob * np.log1p(np.exp(-gap)) + (1 - prob) * np.log1p(np.exp(gap))
  return loss, sigmoid(gap) - prob


class CoupledTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.rng = rng
    lengths = rng.integers(1, T + 1, size=(B, 2))
    where = np.ones(B, bool)
    where[[5, 11]] = False
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(np.arange(T) < lengths[..., None]),
      "where": jnp.array(where),
      "chosen_prob": jnp.array(rng.uniform(size=B)),
      "margin": jnp.array(rng.normal(size=B)),
      "labels": jnp.array(rng.dirichlet(np.ones(3), size=(B, 2))),
      "labelled": jnp.array(rng.random((B, 2)) < 0.7),
      "annotator": jnp.array(rng.integers(-1, U, B), jnp.int32),
      "source": jnp.array(np.arange(B) % S, jnp.int32),
      "group": jnp.array(np.arange(B) % (S + 1) - 1, jnp.int32),
      "row": jnp.arange(B, dtype=jnp.int32),
    }
    self.table = rng.normal(size=(V, D))
    self.membership = mixture.start(jnp.array(rng.dirichlet(np.ones(2), U)))
    roots = rng.normal(size=(U, 2, 2))
    self.places = personal_recipe.Places(
      jnp.array(rng.normal(size=(U, 2))),
      jnp.array(roots @ roots.swapaxes(1, 2)),
      jnp.array(-1.0),
    )

  def rows(self, kind):
    rows = ROWS[kind]()
    if kind == "mixture":
      rows = rows._replace(carry=self.membership)
    if kind == "personal":
      rows = rows._replace(carry=self.places)
    heads = np.random.default_rng(1).normal(size=(D, rows.num_outputs))
    self.params = {"table": jnp.array(self.table), "head": jnp.array(heads)}
    return rows

  def objective(self, kind, coupling, *, dropout=False):
    rows = self.rows(kind)
    return row_loss.couple(
      bradley_terry.pair_forward(apply, dropout=dropout),
      rows,
      row_loss.mean(rows)
      if coupling is None
      else coupling.couple(rows, batch_size=B, num_features=D),
    )

  def gradient(self, objective, batch=None, **options):
    compute = update.make_gradient(objective, **options)
    return jax.jit(compute)(
      self.params, self.batch if batch is None else batch, objective.carry
    )

  def outputs(self):
    """Features [B, 2, D] and outputs [B, 2, H], by NumPy."""
    mask = np.array(self.batch["mask"])[..., None]
    values = np.where(mask, self.table[np.array(self.batch["tokens"])], 0)
    features = values.sum(2) / mask.sum(2)
    return features, features @ np.array(self.params["head"])

  def by_hand(self, kind):
    """Loss [B], slopes in the outputs [B, 2, H] and number of terms [B]."""
    b = jax.tree.map(np.asarray, self.batch)
    _, out = self.outputs()
    gap = out[:, 0] - out[:, 1]
    if kind == "labels":
      used = b["labelled"] & b["where"][:, None]
      probs = np.exp(out) / np.exp(out).sum(-1, keepdims=True)
      each = -(b["labels"] * np.log(probs)).sum(-1)
      slope = (probs - b["labels"]) * used[..., None]
      return (each * used).sum(1), slope, used.sum(1)
    if kind == "mixture":
      shares = np.vstack(  # nobody, at index −1, has the weights
        [self.membership.responsibilities, self.membership.weights]
      )[b["annotator"]]
      each, slope = soft_loss(gap, b["chosen_prob"][:, None])
      each, slope = (shares * each).sum(1), shares * slope
    elif kind == "personal":
      each, slope = self.personal_by_hand(gap, b)
    else:
      each, slope = soft_loss(gap[:, 0] - b["margin"], b["chosen_prob"])
      slope = slope[:, None]
    used = b["where"]
    slope = np.stack([slope, -slope], axis=1) * used[:, None, None]
    return each * used, slope, used.astype(int)

  def personal_by_hand(self, gap, b):
    """Loss [B] and slopes in the gaps of shared reward and factors, [B, 3]."""
    # Nobody, at index −1, is at the prior.
    mean = np.vstack([self.places.mean, np.zeros((1, 2))])[b["annotator"]]
    spread = np.concatenate([self.places.covariance, np.eye(2)[None]])
    spread = spread[b["annotator"]]
    apart = gap[:, 1:]
    middle = gap[:, 0] + (apart * mean).sum(1)
    turned = (spread @ apart[..., None])[..., 0]
    root = np.sqrt(middle**2 + (apart * turned).sum(1))
    lean = b["chosen_prob"] - 0.5
    each = np.log(2 * np.cosh(root / 2)) - lean * middle
    each = each + 0.15 * (apart**2).sum(1)
    safe = np.where(root > 0, root, 1.0)  # equal responses have a root of 0
    bent = np.where(root > 0, np.tanh(root / 2) / (2 * safe), 0.25)
    slope = (bent * middle - lean)[:, None]
    others = slope * mean + bent[:, None] * turned + 0.3 * apart
    return each, np.concatenate([slope, others], axis=1)

  def expected_gradient(self, weights, slopes):
    """Gradient of Σ_n w_n l_n in head and table, by the chain rule."""
    features, _ = self.outputs()
    pull = weights[:, None, None] * slopes
    head = np.einsum("bsd,bsh->dh", features, pull)
    in_features = pull @ np.array(self.params["head"]).T
    mask = np.array(self.batch["mask"])
    table = np.zeros((V, D))
    each = in_features[:, :, None] * mask[..., None]
    each = each / mask.sum(2)[..., None, None]
    np.add.at(table, np.array(self.batch["tokens"]), each)
    return {"head": head, "table": table}

  @parameterized.parameters("pairs", "mixture", "labels", "personal")
  def test_sources_are_weighed_by_the_gradients_of_all_heads(self, kind):
    config = more.MoreConfig("more", S, normalise="none", decay=None)
    got = self.gradient(self.objective(kind, config))
    each, slopes, terms = self.by_hand(kind)
    features, _ = self.outputs()
    source = np.array(self.batch["source"])
    number = np.array([terms[source == k].sum() for k in range(S)])
    heads = [  # ∂L_k/∂W, all columns at once
      np.einsum("bsd,bsh->dh", features[source == k], slopes[source == k])
      / number[k]
      for k in range(S)
    ]
    weights = min_norm_reference(np.stack([h.ravel() for h in heads]))
    self.assertGreater(np.ptp(weights), 0.01)
    for k in range(S):
      np.testing.assert_allclose(
        got.scalars[f"train/source_gradient_norm/{k}"],
        np.linalg.norm(heads[k]),
        rtol=1e-10,
      )
      np.testing.assert_allclose(
        got.scalars[f"train/source_weight/{k}"], weights[k], atol=1e-6
      )
    # The oracle's λ is good to 1e-6, ours is exact: the rest uses ours.
    weights = np.array(
      [got.scalars[f"train/source_weight/{k}"] for k in range(S)]
    )
    per_row = (weights / number)[source]
    np.testing.assert_allclose(got.loss, (per_row * each).sum(), rtol=1e-12)
    for name, expected in self.expected_gradient(per_row, slopes).items():
      np.testing.assert_allclose(
        got.gradient[name], expected, rtol=1e-10, atol=1e-14
      )

  @parameterized.parameters("pairs", "labels", "personal")
  def test_groups_are_weighed_by_their_mean_loss(self, kind):
    config = group_dro.GroupDroConfig("group_dro", S, step_size=0.7)
    got = self.gradient(self.objective(kind, config))
    each, slopes, terms = self.by_hand(kind)
    group = np.array(self.batch["group"])
    mine = [group == g for g in range(S)]
    number = np.array([terms[one].sum() for one in mine])
    means = np.array([each[one].sum() for one in mine]) / number
    weights = np.exp(0.7 * means) / np.exp(0.7 * means).sum()
    per_row = np.where(group >= 0, (weights / number)[group], 0)
    # The weights are carried in float32.
    np.testing.assert_allclose(got.loss, (weights * means).sum(), rtol=1e-6)
    for name, expected in self.expected_gradient(per_row, slopes).items():
      np.testing.assert_allclose(got.gradient[name], expected, atol=1e-6)

  @parameterized.parameters("pairs", "mixture", "labels", "personal")
  def test_the_mean_is_over_terms(self, kind):
    got = self.gradient(self.objective(kind, None))
    each, slopes, terms = self.by_hand(kind)
    np.testing.assert_allclose(got.loss, each.sum() / terms.sum(), rtol=1e-12)
    expected = self.expected_gradient(np.full(B, 1 / terms.sum()), slopes)
    for name, value in expected.items():
      np.testing.assert_allclose(
        got.gradient[name], value, rtol=1e-10, atol=1e-14
      )

  @parameterized.parameters("pairs", "mixture", "labels", "normal", "personal")
  def test_padding_and_order_change_nothing(self, kind):
    config = more.MoreConfig("more", S)
    objective = self.objective(kind, config)
    expected = self.gradient(objective)
    where = np.array(self.batch["where"])
    garbage = dict(self.batch)
    for name, array in self.batch.items():
      shape = (B,) + (1,) * (array.ndim - 1)
      if jnp.issubdtype(array.dtype, jnp.floating):
        other = jnp.full_like(array, jnp.nan if name == "labels" else 0.25)
      elif name in ("where", "row", "mask", "labelled"):
        continue
      else:
        other = jnp.ones_like(array)
      garbage[name] = jnp.where(where.reshape(shape), array, other)
    order = np.random.default_rng(2).permutation(B)
    permuted = jax.tree.map(lambda x: x[order], self.batch)
    permuted["row"] = self.batch["row"]
    for batch in (garbage, permuted):
      got = self.gradient(objective, batch)
      np.testing.assert_allclose(got.loss, expected.loss, rtol=1e-10)
      for name, value in expected.gradient.items():
        np.testing.assert_allclose(
          got.gradient[name], value, rtol=1e-8, atol=1e-12
        )

  @parameterized.parameters("pairs", "mixture", "labels", "normal", "personal")
  def test_accumulation_changes_nothing(self, kind):
    for coupling in (
      more.MoreConfig("more", S, parts=2),
      group_dro.GroupDroConfig("group_dro", S),
    ):
      objective = self.objective(kind, coupling)
      expected = self.gradient(objective)
      for accumulation in (2, 4):
        got = self.gradient(objective, accumulation=accumulation)
        for name, value in expected.gradient.items():
          np.testing.assert_allclose(
            got.gradient[name], value, rtol=1e-10, atol=1e-14
          )

  @parameterized.parameters("mixture", "labels", "personal")
  def test_any_layout_gives_the_same_two_steps(self, kind):
    objective = self.objective(kind, more.MoreConfig("more", S), dropout=True)
    layouts.assert_same_descent(self, objective, self.params, self.batch)

  def test_a_mixture_under_a_coupling_keeps_its_membership(self):
    objective = self.objective("mixture", more.MoreConfig("more", S))
    got = self.gradient(objective)
    self.assertIsInstance(got.carry, row_loss.Carry)
    jax.tree.map(
      np.testing.assert_array_equal,
      row_loss.rows_of(got.carry),
      self.membership,
    )
    self.assertTrue(bool(got.carry.coupling.begun.all()))
    other = mixture.start(jnp.eye(2)[np.arange(U) % 2])
    moved = row_loss.with_rows(got.carry, other)
    self.assertIs(moved.rows, other)
    self.assertIs(moved.coupling, got.carry.coupling)
    self.assertIs(row_loss.rows_of(row_loss.with_rows(other, other)), other)


if __name__ == "__main__":
  absltest.main()
