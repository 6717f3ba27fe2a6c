"""The ties score by its published case and by a loop."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.metrics import ties_score

# Two prompts; the padding of the shorter rows holds garbage.
REFERENCE = np.array([[2, 0.5, -1], [0.2, 0.4, np.nan]])
TIED = np.array([[3, 2.5, 2, 0.5], [1, 0.2, 0.9, np.inf]])
ARRAYS = dict(
  reference_correct=np.array([[1, 0, 0], [1, 0, 0]], bool),
  tied_correct=np.array([[1, 1, 1, 0], [1, 1, 0, 0]], bool),
  reference_where=np.array([[1, 1, 1], [1, 1, 0]], bool),
  tied_where=np.array([[1, 1, 1, 1], [1, 1, 1, 0]], bool),
)


def by_loop(reference, tied, reference_correct, tied_correct):
  terms = []
  for scores, right, others, tied_right in zip(
    reference, reference_correct, tied, tied_correct, strict=True
  ):
    first = scores[right].min() - scores[~right].max()
    second = others[tied_right].min() - others[~tied_right].max()
    width = others[tied_right].max() - others[tied_right].min()
    both = min(first, second)
    terms.append(
      0.3 * (second > 0)
      + 0.3 * (first > 0)
      + 0.2 * (second > width)
      + 0.2 * (both > width)
      + 0.01 * np.tanh(both / width - 1)
    )
  return np.mean(terms)


class TiesScoreTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(jax.enable_x64(True))

  def test_published_case(self):
    got = jax.jit(ties_score)(REFERENCE, TIED, **ARRAYS)
    np.testing.assert_allclose(got, 0.4975404, atol=5e-8)

  def test_matches_a_loop_and_ignores_order_and_offsets(self):
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(20, 4)), rng.normal(size=(20, 6))
    first[:, 0] += 1
    second[:, :3] = 0.3 * second[:, :3] + 2
    right = dict(
      reference_correct=np.arange(4)[None].repeat(20, 0) < 1,
      tied_correct=np.arange(6)[None].repeat(20, 0) < 3,
    )
    want = by_loop(first, second, **right)
    np.testing.assert_allclose(ties_score(first, second, **right), want)
    shift = rng.normal(size=(20, 1))
    moved = ties_score(first + shift, second - shift, **right)
    np.testing.assert_allclose(moved, want)
    flipped = {k: v[:, ::-1] for k, v in right.items()}
    turned = ties_score(first[:, ::-1], second[:, ::-1], **flipped)
    np.testing.assert_allclose(turned, want)

  @parameterized.parameters((1.0, 1.01), (-1.0, -0.01), (0.0, -0.01 * 0.761594))
  def test_answers_that_tie_exactly_take_the_limit(self, gap, expected):
    got = ties_score(
      np.array([[gap, 0.0]]),
      np.array([[gap, gap, 0.0]]),
      reference_correct=np.array([[True, False]]),
      tied_correct=np.array([[True, True, False]]),
    )
    np.testing.assert_allclose(got, expected, atol=1e-7)

  def test_a_prompt_without_wrong_answers_is_not_scored_in_silence(self):
    nothing = ARRAYS | dict(reference_correct=np.ones((2, 3), bool))
    self.assertTrue(np.isnan(ties_score(REFERENCE, TIED, **nothing)))

  def test_bfloat16_is_raised(self):
    narrow = (
      jnp.asarray(REFERENCE, jnp.bfloat16),
      jnp.asarray(TIED, jnp.float32),
    )
    self.assertEqual(ties_score(*narrow, **ARRAYS).dtype, jnp.float32)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "tied_scores must have 2 axes"):
      ties_score(REFERENCE, TIED[0], **ARRAYS)
    with self.assertRaisesRegex(ValueError, r"reference_correct \(1, 3\)"):
      wrong = dict(reference_correct=ARRAYS["reference_correct"][:1])
      ties_score(REFERENCE, TIED, **ARRAYS | wrong)
    with self.assertRaisesRegex(ValueError, r"tied_scores \(1,\)"):
      one = {k: v[:1] if "tied" in k else v for k, v in ARRAYS.items()}
      ties_score(REFERENCE, TIED[:1], **one)
    with self.assertRaisesRegex(TypeError, "tied_correct must be bool"):
      ties_score(REFERENCE, TIED, **ARRAYS | dict(tied_correct=np.ones((2, 4))))
    with self.assertRaisesRegex(TypeError, "reference_scores must be floating"):
      ties_score(np.ones((2, 3), int), TIED, **ARRAYS)


if __name__ == "__main__":
  absltest.main()
