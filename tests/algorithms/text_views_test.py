"""Masked tokens and deleted spans: loops over tokens, and in training."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import (
  contrastive,
  text_views,
  update,
)
from tests.algorithms import contrastive_test as plain
from tests.algorithms import layouts
from tests.algorithms.contrastive_test import B, D, T, V

LENGTH, MASK = 12, 99


def text(length, begin):
  tokens = np.where(np.arange(LENGTH) < length, 10 + np.arange(LENGTH), 0)
  mask = np.arange(LENGTH) < length
  return jnp.array(tokens, jnp.int32), jnp.array(mask), jnp.int32(begin)


class ChangesTest(parameterized.TestCase):
  @parameterized.parameters((10, 4), (12, 0), (2, 0), (1, 0), (0, 0), (6, 6))
  def test_first_last_and_prompt_are_never_masked(self, length, begin):
    given = text(length, begin)
    may = [i for i in range(LENGTH) if max(begin, 1) <= i < length - 1]
    change = jax.jit(text_views.masked(0.4, MASK))
    seen = set()
    for seed in range(40):
      tokens, mask = change(jax.random.key(seed), *given)
      np.testing.assert_array_equal(mask, given[1])
      changed = np.flatnonzero(np.asarray(tokens) != np.asarray(given[0]))
      np.testing.assert_array_equal(tokens[changed], MASK)
      seen.update(changed.tolist())
    self.assertEqual(seen, set(may))

  def test_as_many_are_masked_as_the_rate_says(self):
    length = 20_000
    tokens, mask = text_views.masked(0.3, MASK)(
      jax.random.key(0),
      jnp.ones(length, jnp.int32),
      jnp.ones(length, bool),
      jnp.int32(0),
    )
    del mask
    # Five standard errors.
    share = float((tokens == MASK).mean())
    self.assertAlmostEqual(share, 0.3, delta=5 * np.sqrt(0.21 / length))

  @parameterized.parameters((10, 4, 2), (12, 0, 3), (3, 0, 1), (12, 8, 1))
  def test_a_span_is_taken_out_and_the_rest_moves_up(self, length, begin, size):
    given = text(length, begin)
    first, last = max(begin, 1), length - 1
    change = jax.jit(text_views.shortened(0.3))
    starts = set()
    for seed in range(60):
      tokens, mask = change(jax.random.key(seed), *given)
      kept = np.asarray(tokens)[np.asarray(mask)].tolist()
      whole = (10 + np.arange(length)).tolist()
      options = {
        start: whole[:start] + whole[start + size :]
        for start in range(first, last - size + 1)
      }
      (start,) = [s for s, option in options.items() if option == kept]
      starts.add(start)
      np.testing.assert_array_equal(mask, np.arange(LENGTH) < length - size)
    self.assertEqual(starts, set(options))

  @parameterized.parameters((2, 0), (1, 0), (0, 0), (6, 6), (6, 5))
  def test_a_text_without_tokens_to_change_stays(self, length, begin):
    given = text(length, begin)
    tokens, mask = text_views.shortened(0.5)(jax.random.key(0), *given)
    np.testing.assert_array_equal(tokens, given[0])
    np.testing.assert_array_equal(mask, given[1])


MASKING = dict(augmentation="masking", augmentation_rate=0.5, mask_token=V - 1)
DELETION = dict(augmentation="deletion", augmentation_rate=0.5)


def without_dropout(params, tokens, mask, *, dropout_keys=None):
  del dropout_keys
  values = jnp.where(mask[..., None], params["table"][tokens], 0.0)
  features = jnp.tanh(values.sum(1) / jnp.maximum(mask.sum(1), 1)[:, None])
  return plain.Output((features @ params["head"])[:, None], features)


class TrainingTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))
    rng = np.random.default_rng(0)
    self.params = {
      "table": jnp.array(rng.normal(size=(V, D))),
      "head": jnp.array(rng.normal(size=D)),
    }
    lengths = rng.integers(3, T + 1, size=(B, 2))
    self.batch = {
      "tokens": jnp.array(rng.integers(0, V, (B, 2, T)), jnp.int32),
      "mask": jnp.array(np.arange(T) < lengths[..., None]),
      "where": jnp.array([True] * 5 + [False] + [True] * 10),
      "row": jnp.arange(B, dtype=jnp.int32),
    }

  def built(self, dropout=False, **changes):
    return contrastive.contrastive(
      plain.apply if dropout else without_dropout,
      plain.config(**changes),
      plain.PLAIN,
      batch_size=B,
      num_features=D,
      dropout=dropout,
    )

  def keyed(self):
    key = jax.random.fold_in(jax.random.key(2), 0)
    return self.batch | {"key": update.row_keys(key, self.batch["row"])}

  @parameterized.parameters((MASKING,), (DELETION,))
  def test_loss_is_that_of_the_texts_and_of_the_changed_texts(self, changes):
    change = (
      text_views.masked(0.5, V - 1)
      if changes is MASKING
      else text_views.shortened(0.5)
    )
    keyed = self.keyed()
    rewards, features = [], []
    for row in range(B):
      keys = jax.random.split(keyed["key"][row], 3)
      both = [(self.batch["tokens"][row], self.batch["mask"][row])]
      both.append(
        tuple(
          jnp.stack(part)
          for part in zip(
            *(
              change(keys[1 + side], both[0][0][side], both[0][1][side], 0)
              for side in range(2)
            ),
            strict=True,
          )
        )
      )
      out = [without_dropout(self.params, *one) for one in both]
      rewards.append([o.rewards[:, 0] for o in out])
      features.append([o.features for o in out])
    counted = np.asarray(self.batch["where"])
    rewards = np.array(rewards)[counted]
    features = np.array(features)[counted]  # [n, view, side, D]
    gaps = rewards[..., 0] - rewards[..., 1]
    rows = np.concatenate([features[:, :, 0], features[:, :, 1]])
    expected = np.log1p(np.exp(-gaps)).mean() + plain.simcse(
      rows[:, 0], rows[:, 1]
    )
    got = plain.gradient_of(self.built(**changes))(
      self.params, self.keyed(), ()
    )
    np.testing.assert_allclose(got.loss, expected, rtol=1e-12)
    self.assertLess(float(got.scalars["train/view_cosine"]), 0.999)

  def test_other_texts_of_the_batch_are_the_second_view(self):
    # Those of the pair behind, so that both views are texts of the batch.
    behind = {
      f"view_{k}": jnp.roll(self.batch[k], 1, axis=0)
      for k in ("tokens", "mask")
    }
    self.batch |= behind
    built = self.built(augmentation="back_translation")
    got = plain.gradient_of(built)(self.params, self.keyed(), ())
    counted = np.asarray(self.batch["where"])
    out = [
      without_dropout(
        self.params,
        self.batch[f"{view}tokens"].reshape(-1, T),
        self.batch[f"{view}mask"].reshape(-1, T),
      )
      for view in ("", "view_")
    ]
    rewards = np.stack([o.rewards.reshape(B, 2) for o in out], 1)[counted]
    features = np.stack([o.features.reshape(B, 2, D) for o in out], 1)[counted]
    gaps = rewards[..., 0] - rewards[..., 1]
    rows = np.concatenate([features[:, :, 0], features[:, :, 1]])
    expected = np.log1p(np.exp(-gaps)).mean() + plain.simcse(
      rows[:, 0], rows[:, 1]
    )
    np.testing.assert_allclose(got.loss, expected, rtol=1e-12)

  def test_with_dropout_too_both_are_at_work(self):
    found = [
      float(
        plain.gradient_of(self.built(**options))(
          self.params, self.keyed(), ()
        ).loss
      )
      for options in (
        dict(DELETION),
        dict(dropout=True),
        dict(DELETION, dropout=True),
      )
    ]
    self.assertLen(set(found), 3)

  def test_a_prompt_stays(self):
    whole = {"prompt_lengths": jnp.full((B, 2), T, jnp.int32)}
    views = text_views.second_view(
      text_views.shortened(0.5), self.keyed() | whole
    )
    np.testing.assert_array_equal(
      views["tokens"][:, :2], views["tokens"][:, 2:]
    )
    np.testing.assert_array_equal(views["mask"][:, :2], views["mask"][:, 2:])

  @parameterized.parameters(
    (MASKING,), (DELETION,), (dict(augmentation="back_translation"),)
  )
  def test_any_layout_gives_the_same_two_steps(self, changes):
    for name in ("tokens", "mask"):
      self.batch[f"view_{name}"] = jnp.roll(self.batch[name], 1, axis=0)
    built = self.built(**changes)
    layouts.assert_same_descent(self, built, self.params, self.batch)

  @parameterized.parameters(
    (dict(augmentation="paraphrase"), "augmentation must be one of"),
    (
      dict(augmentation="back_translation", augmentation_rate=0.2),
      "got 0.2 with 'back_translation'",
    ),
    (dict(augmentation_rate=0.2), "goes with augmentation='masking' or"),
    (dict(DELETION, augmentation_rate=1.0), r"must be in \(0, 1\)"),
    (dict(augmentation="masking"), "mask_token must be an id with"),
    (dict(DELETION, mask_token=1), "None with others, got 1 with 'deletion'"),
    (dict(MASKING, mask_token=-1), "mask_token must be >= 0"),
  )
  def test_bad_values_are_named(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      plain.config(**changes)


if __name__ == "__main__":
  absltest.main()
