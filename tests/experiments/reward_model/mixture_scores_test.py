"""Scores of mixtures of known heads, and the page that shows them."""

import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.batching import pair_dataset
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.reports import mixture
from jaxalign.experiments.reward_model import mixture_scores, user_assignment
from jaxalign.runtime.plots import html_report

PEOPLE, EACH = 8, 12  # the last two of group "few"
GROUP = np.where(np.arange(PEOPLE) < 6, 0, 1)


def dataset(named: bool = True):
  """Pairs of eight people, of one group each."""
  return pair_dataset.encode_pairs(
    [
      Record(
        prompt="q",
        responses=(f" a{pair}", f" b{pair}"),
        annotator=f"person-{u}" if named else None,
        group=("all", "few")[GROUP[u]] if named else None,
      )
      for pair in range(EACH)
      for u in range(PEOPLE)
    ],
    tokenizer_files.byte_tokenizer(),
    max_length=16,
  )


def rewards(size: float = 2.0):
  """Head 0 foresees group 0 and head 1 group 1, the others' opposite."""
  group = np.tile(GROUP, EACH)
  gaps = np.where(group[:, None] == np.arange(2), size, -size)
  return np.stack([gaps, np.zeros_like(gaps)], axis=1).astype(np.float32)


def log_sigmoid(x):
  return -np.logaddexp(0, -x)


class UsersTest(absltest.TestCase):
  def test_groups_of_users(self):
    records = [
      Record("q", ("a", "b"), annotator=who, group=group)
      for who, group in (
        ("a", "x"),
        ("b", "y"),
        ("c", "x"),
        ("c", "y"),
        ("d", None),
        (None, "x"),
        ("a", "x"),
      )
    ]
    data = pair_dataset.encode_pairs(
      records, tokenizer_files.byte_tokenizer(), max_length=16
    )
    np.testing.assert_array_equal(
      user_assignment.user_groups(data), [0, 1, -1, -1]
    )

  def test_recovery_names_components_one_to_one(self):
    home = np.array([2, 2, 0, 0, 1, 1, 2])
    got = user_assignment.recovery(
      np.eye(3)[home], np.array([0, 0, 1, 1, 1, -1, 1]), 2
    )
    np.testing.assert_array_equal(got.confusion, [[0, 0, 2], [2, 1, 1]])
    self.assertAlmostEqual(got.accuracy, 4 / 6)
    none = user_assignment.recovery(np.eye(3)[home], np.full(7, -1), 0)
    self.assertIsNone(none)

  def test_new_users_are_placed_by_their_first_pairs(self):
    gaps = np.array([[1.0, -1.0], [2.0, 0.5], [-3.0, 1.0], [9.0, -9.0]])
    user = np.array([1, 0, 1, 1])
    weights = [0.6, 0.4]
    got = user_assignment.assign_users(gaps, user, 3, weights, num_pairs=2)
    odds = np.log(weights) + np.array(
      [log_sigmoid(gaps[1]), log_sigmoid(gaps[0]) + log_sigmoid(gaps[2])]
    )
    expected = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(got[:2], expected, rtol=1e-5)
    np.testing.assert_allclose(got[2], weights, rtol=1e-6)


def votes_on_items():
  """Two people who endorse items 0 to 3 and reject 4 to 7, all 16 pairs."""
  return pair_dataset.encode_pairs(
    [
      Record("q", (f" item {a}", f" item {b}"), annotator=who)
      for who in ("first", "second")
      for a in range(4)
      for b in range(4, 8)
    ],
    tokenizer_files.byte_tokenizer(),
    max_length=32,
  )


class RepeatedTextsTest(absltest.TestCase):
  def test_texts_have_one_number_each(self):
    texts = votes_on_items().texts
    np.testing.assert_array_equal(texts[:16], texts[16:])
    self.assertLen(np.unique(texts), 8)
    np.testing.assert_array_equal(np.unique(texts[:, 0]), texts[::4, 0][:4])

  def test_no_text_that_placed_a_person_is_scored(self):
    gaps = np.random.default_rng(0).normal(size=(32, 2))
    values = np.stack([gaps, 0 * gaps], axis=1).astype(np.float32)
    lines = mixture_scores.summarise(values, votes_on_items(), None)[
      "new_users"
    ]
    # The first five pairs are of items 0 and 1 with all of the others.
    self.assertEqual([line["pairs_seen"] for line in lines], [0, 1, 2])
    # Of the first two, of items 0, 4 and 5: six pairs of 1 to 3 with 6 and 7.
    self.assertEqual({line["num_pairs"] for line in lines}, {12})
    later = np.flatnonzero(np.isin(np.arange(32) % 16, [6, 7, 10, 11, 14, 15]))
    even = 1 / (1 + np.exp(-gaps.astype(np.float32)))
    self.assertAlmostEqual(
      lines[0]["nll"], -np.log(even.mean(axis=1)[later]).mean(), places=5
    )

  def test_a_likelihood_counts_no_vote_twice(self):
    data = votes_on_items()
    kept = user_assignment.first_said(data.annotator, data.texts)
    np.testing.assert_array_equal(np.flatnonzero(kept[:16]), [0, 5, 10, 15])
    np.testing.assert_array_equal(kept[:16], kept[16:])
    gaps = np.random.default_rng(0).normal(size=(32, 2)).astype(np.float32)
    values = np.stack([gaps, 0 * gaps], axis=1)
    got = mixture_scores.quick(values, data, (0.6, 0.4))["eval/user_nll"]
    each = log_sigmoid(gaps[kept]).reshape(2, 4, 2).sum(axis=1)
    expected = -np.log(np.exp(each) @ [0.6, 0.4]).sum() / 8
    self.assertAlmostEqual(got, expected, places=5)

  def test_pairs_of_nobody_all_count_and_place_nobody(self):
    user, sides = np.array([-1, 0, -1, 0]), np.array([[0, 1]] * 4)
    np.testing.assert_array_equal(
      user_assignment.first_said(user, sides), [True, True, True, False]
    )
    np.testing.assert_array_equal(
      user_assignment.apart(user, sides, 0), [False, True, False, True]
    )
    self.assertFalse(user_assignment.apart(user, sides, 1).any())


class ScoresTest(absltest.TestCase):
  def test_heads_groups_and_people(self):
    got = mixture_scores.summarise(rewards(), dataset(), (0.75, 0.25))
    self.assertEqual(got["heads"]["accuracy"], [[1.0, 0.0], [0.0, 1.0]])
    self.assertEqual(got["heads"]["all"], [0.75, 0.25])
    self.assertEqual(got["pooled"]["accuracy"], 0.75)
    p = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(
      got["diversity"], (2 * p - 1) * (1 - np.eye(2)), rtol=1e-5
    )
    self.assertEqual(got["users"]["confusion"], [[6, 0], [0, 2]])
    likelihood = [
      np.log(
        share * np.exp(EACH * log_sigmoid(2.0))
        + (1 - share) * np.exp(EACH * log_sigmoid(-2.0))
      )
      for share in np.where(GROUP == 0, 0.75, 0.25)
    ]
    self.assertAlmostEqual(
      got["user_nll"], -np.sum(likelihood) / PEOPLE / EACH, places=5
    )
    seen = {line["pairs_seen"]: line for line in got["new_users"]}
    self.assertEqual([*seen], [0, 1, 2, 5, 10])
    self.assertEqual(seen[0]["groups"], {"all": 1.0, "few": 0.0})
    self.assertEqual(seen[1]["groups"], {"all": 1.0, "few": 1.0})
    self.assertEqual(seen[10]["num_pairs"], 2 * PEOPLE)
    after = np.array([0.75 * p, 0.25 * (1 - p)])
    np.testing.assert_allclose(
      np.exp(-seen[1]["nll"] * PEOPLE),
      (after @ [p, 1 - p] / after.sum()) ** 6
      * (lambda w: (w @ [1 - p, p] / w.sum()) ** 2)(
        np.array([0.75 * (1 - p), 0.25 * p])
      ),
      rtol=1e-4,
    )

  def test_without_names_there_are_heads_alone(self):
    got = mixture_scores.summarise(rewards(), dataset(named=False), None)
    self.assertEqual(got["weights"], [0.5, 0.5])
    self.assertNotIn("users", got)
    self.assertEqual(
      {*mixture_scores.quick(rewards(), dataset(named=False), (0.5, 0.5))},
      {"eval/accuracy", "eval/nll"},
    )

  def test_quick_scores_are_those_of_the_summary(self):
    got = mixture_scores.quick(rewards(), dataset(), (0.75, 0.25))
    full = mixture_scores.summarise(rewards(), dataset(), (0.75, 0.25))
    self.assertEqual(
      got,
      {
        "eval/accuracy": full["pooled"]["accuracy"],
        "eval/nll": full["pooled"]["nll"],
        "eval/user_nll": full["user_nll"],
      },
    )

  def test_one_head_is_no_mixture(self):
    models = {"one": rewards()[..., :1], "two": rewards()}
    shares = {"one": None, "two": None}
    self.assertEqual(
      [*mixture_scores.of_models(models, dataset(), shares)], ["two"]
    )
    split = mixture_scores.by_head(models)
    self.assertEqual([*split], ["one", "two, head 0", "two, head 1"])
    np.testing.assert_array_equal(split["two, head 1"], models["two"][..., 1:])

  def test_the_page_takes_whatever_there_is(self):
    for named in (True, False):
      scores = mixture_scores.summarise(rewards(), dataset(named), None)
      sections = mixture.sections({"model": scores})
      path = epath.Path(tempfile.mkdtemp()) / "page.html"
      html_report.write_report(path, title="t", headline="h", sections=sections)
      self.assertEqual("New people" in path.read_text(), named)


if __name__ == "__main__":
  absltest.main()
