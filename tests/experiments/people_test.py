"""The page about people: crowds of known groups, what is shown and what not."""

import json
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign import models
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import people
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.reports import people as pages
from jaxalign.experiments.reward_model import latent_groups, people_scores
from tests import shipped
from tests.models.hf import families_test
from tests.models.samples import start

D, ITEMS = 6, 80
GROUPS = latent_groups.GroupsConfig(
  components=(1, 2), ridges=(0.003, 0.01), folds=3, num_rounds=10, restarts=2
)


def crowd(tastes, number, pairs=16, seed=0, odd=0):
  """Records by people of each taste in turn, and features of their texts."""
  rng = np.random.default_rng(seed)
  features = rng.normal(size=(ITEMS, D))
  records = []
  for person in range(number):
    taste = tastes[person % len(tastes)] if person >= odd else -tastes[0]
    for _ in range(pairs):
      a, b = rng.choice(ITEMS, 2, replace=False)
      gap = 3 * (features[a] - features[b]) @ taste
      a, b = (a, b) if rng.random() < 1 / (1 + np.exp(-gap)) else (b, a)
      records.append(
        Record(
          "Q",
          (f" item {a:02}", f" item {b:02}"),
          annotator=f"who-{person}",
          group="even" if person % len(tastes) == 0 else "other",
        )
      )
  judged = latent_groups.of_records(records)
  order = [int(text.split()[1]) for _, text in judged.texts]
  return judged, features[order]


def scored(judged, features, own=None, **changes):
  config = people_scores.PeopleConfig(**{"num_samples": 100} | changes)
  return people_scores.score(judged, features, own, GROUPS, config, 0)


def fitted_pooled(judged, turned, fold, ridge):
  return latent_groups.cross_fit(
    judged, turned, fold, GROUPS, components=1, ridge=ridge, seed=0
  ).log_likelihood.sum()


TASTES = np.eye(D)[:2] * [[1.0], [-1.0]]


class GroupsTest(parameterized.TestCase):
  def test_two_tastes_are_found_and_serve_new_people(self):
    served = scored(*crowd(TASTES, 40))
    result, dots = served
    self.assertEqual(result["components"], 2)
    self.assertGreater(result["accuracy"]["gain"]["low"], 0.02)
    self.assertGreater(
      result["accuracy"]["after"]["value"], result["curve"][0]["value"]
    )
    self.assertGreaterEqual(result["known_groups"]["agreement"], 0.9)
    self.assertEqual(result["known_groups"]["largest_alone"], 0.5)
    self.assertEqual(sum(one["people"] for one in result["groups"]), 40)
    self.assertLen(dots.before, 40)
    # A mean over people beside one over pairs, of which each has 6 to 11.
    self.assertAlmostEqual(
      dots.after.mean(), result["accuracy"]["after"]["value"], delta=0.01
    )
    divide = result["statements"]["divide"][0]["shares"]
    self.assertGreater(abs(divide[0] - divide[1]), 0.5)
    unite = result["statements"]["unite"][0]["shares"]
    self.assertGreater(min(unite), 0.5)

  def test_the_control_finds_one_taste_and_gains_nothing(self):
    served = scored(*crowd(TASTES[:1], 40))
    result = served.result
    self.assertEqual(result["components"], 1)
    self.assertEqual(result["accuracy"]["gain"]["value"], 0.0)
    self.assertIsNone(result["known_groups"])
    self.assertIn("no latent groups were found", pages.headline(result))

  def test_a_models_own_reward_is_scored_beside_its_features(self):
    judged, features = crowd(TASTES, 40)
    wrong = scored(judged, features, np.full(len(judged.user), 0.1)).result
    self.assertEqual(wrong["accuracy"]["before"]["value"], 0.0)
    self.assertGreater(wrong["accuracy"]["pooled_head"]["value"], 0.4)
    self.assertEqual(wrong["worst_tenth"]["before"]["value"], 0.0)
    self.assertStartsWith(pages.headline(wrong), "The model ranks 0.0 %")

  def test_nobody_scores_themselves(self):
    # A person whose votes are flipped changes nothing of what is predicted of
    # the person without own pairs.
    judged, features = crowd(TASTES[:1], 30)
    fold = latent_groups.fold_of(judged.people, 3, 0)
    turned = latent_groups.projection(features, 8)(features)
    fitted = lambda data: latent_groups.cross_fit(
      data, turned, fold, GROUPS, components=2, ridge=0.01, seed=0
    )
    mine = judged.user == 7
    flipped = judged._replace(
      chosen=np.where(mine, judged.rejected, judged.chosen),
      rejected=np.where(mine, judged.chosen, judged.rejected),
    )
    first, second = fitted(judged), fitted(flipped)
    np.testing.assert_allclose(first.gaps[mine], -second.gaps[mine], rtol=1e-6)
    probs = latent_groups.predicted(first, judged, 0)
    direct = np.sum(
      first.weights[judged.user] / (1 + np.exp(-first.gaps)), axis=1
    )
    np.testing.assert_allclose(probs, direct, rtol=1e-7)

  def test_no_text_that_placed_a_person_is_scored(self):
    texts = [("Q", f" {i}") for i in range(6)]
    judged = latent_groups.Judged(
      texts,
      np.array([0, 2, 0, 2, 4, 0, 5]),
      np.array([1, 3, 4, 5, 5, 1, 1]),
      np.array([0, 0, 0, 0, 0, 1, 1]),
      ["a", "b"],
      [None, None],
      0,
    )
    free = lambda number: latent_groups.apart(judged, number).tolist()
    self.assertEqual(free(0), [True] * 7)
    # After 0 > 1: without pairs of texts 0 and 1 of the same person.
    self.assertEqual(free(1), [False, True, False, True, True, False, False])
    self.assertEqual(free(2), [False, False, False, False, True, False, False])
    self.assertEqual(
      latent_groups.enough(judged, np.array(free(1)), 3).tolist(), free(1)
    )
    self.assertFalse(latent_groups.enough(judged, np.array(free(1)), 4).any())

  def test_a_repeated_vote_decides_no_number_of_groups(self):
    # All pairs of each person said twice: nothing that held-out likelihood
    # compares may change, as it would if a vote counted again.
    judged, features = crowd(TASTES, 30)
    turned = latent_groups.projection(features, 8)(features)
    fold = latent_groups.fold_of(judged.people, 3, 0)
    fitted = lambda data: latent_groups.cross_fit(
      data, turned, fold, GROUPS, components=2, ridge=0.01, seed=0
    )
    one = fitted(judged)
    again = latent_groups.Judged(
      judged.texts,
      *(np.tile(column, 2) for column in judged[1:4]),
      *judged[4:],
    )
    two = fitted(again)
    number = len(judged.user)
    np.testing.assert_array_equal(two.counted[:number], one.counted)
    self.assertFalse(two.counted[number:].any())
    self.assertLess(one.counted.sum(), number)
    likely = np.zeros(30)
    np.add.at(
      likely,
      judged.user[one.counted],
      -np.logaddexp(0, -one.gaps[one.counted] @ [1.0, 0.0]),
    )
    other = np.zeros(30)
    np.add.at(
      other,
      judged.user[one.counted],
      -np.logaddexp(0, -one.gaps[one.counted] @ [0.0, 1.0]),
    )
    expected = np.logaddexp(
      np.log(one.weights[:, 0]) + likely, np.log(one.weights[:, 1]) + other
    )
    np.testing.assert_allclose(one.log_likelihood, expected, rtol=1e-6)
    table = latent_groups.choose(judged, turned, fold, GROUPS, 0).table
    self.assertAlmostEqual(
      table[0]["log_likelihood"] * one.counted.sum(),
      fitted_pooled(judged, turned, fold, table[0]["ridge"]),
      places=3,
    )

  def test_a_group_of_few_is_not_shown(self):
    judged, features = crowd(TASTES, 42)
    home = np.array([0] * 38 + [1] * 4)
    shares = np.eye(2)[home]
    self.assertEqual({*people_scores._home(shares, 5)}, {0, -1})
    self.assertEqual({*people_scores._home(shares, 4)}, {0, 1})
    config = people_scores.PeopleConfig()
    found = people_scores.statements(
      judged, people_scores._home(shares, 5), config
    )
    for lines in found.values():
      self.assertEqual({len(line["shares"]) for line in lines}, {1})
      self.assertGreaterEqual(min(line["people"] for line in lines), 5)

  def test_heads_can_be_read_on_raw_features(self):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 5)) * [1, 100, 0.01, 1, 0] + 3
    turn = latent_groups.projection(features, 3)
    turned = turn(features)
    self.assertEqual(turned.shape, (30, 3))
    self.assertAlmostEqual(np.sum(turned**2) / 30, 1.0, places=5)
    heads = rng.normal(size=(2, 3))
    raw = features @ turn.raw(heads).T
    expected = turned @ heads.T
    np.testing.assert_allclose(raw - raw[0], expected - expected[0], atol=1e-5)

  def test_worst_tenth_against_equal_service(self):
    counts = np.full(200, 10)
    rng = np.random.default_rng(0)
    alike = rng.binomial(10, 0.7, 200) / 10
    unlike = np.where(np.arange(200) < 30, 0.2, 0.8)
    found = latent_groups.worst_tenth_scores(
      {"alike": alike, "unlike": unlike}, counts, 200, 0
    )
    self.assertAlmostEqual(
      found["alike"]["value"], found["alike"]["if_alike"], delta=0.06
    )
    self.assertAlmostEqual(found["unlike"]["value"], 0.2)
    self.assertGreater(found["unlike"]["if_alike"], 0.35)
    self.assertEqual(latent_groups.worst_tenth(np.array([0.3, 0.9])), 0.3)

  def test_errors(self):
    judged, features = crowd(TASTES, 40)
    with self.assertRaisesRegex(ValueError, "^0 people have 5 pairs or more"):
      scored(judged, features, num_pairs=15)
    with self.assertRaisesRegex(ValueError, "no pair has an `annotator`"):
      latent_groups.of_records([Record("Q", ("a", "b"))])
    with self.assertRaisesRegex(ValueError, "min_group must be >= 1"):
      people_scores.PeopleConfig(min_group=0)
    for changes in ({"components": ()}, {"ridges": (0.0,)}, {"folds": 1}):
      with self.assertRaisesRegex(ValueError, "must be"):
        latent_groups.GroupsConfig(**changes)


class StageTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def config(self, num_outputs=None):
    network = families_test.tiny(
      "llama", vocab_size=259, max_positions=64, pad_id=256, num_layers=2
    )
    model = self.folder / "model"
    if num_outputs is None:
      _, params = start(network)
      models.save_pretrained(model, params, network)
    tokenizer_files.byte_tokenizer().save(model)
    rng = np.random.default_rng(0)
    rows = [
      {"person": f"secret-{p}", "item": i, "text": f"text {i}",
       "prompt": "Q:", "vote": int(rng.choice([1, -1]))}
      for p in range(20)
      for i in range(40)
    ]  # fmt: skip
    votes = self.folder / "votes.jsonl"
    votes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cfg = shipped.config("people", "smoke")
    cfg.mesh.data = 1
    cfg.model = str(model)
    cfg.data.update(
      eval_files=(f"item_votes:{votes}",), max_length=64, buckets=(64,)
    )
    cfg.features.layer = 1
    return cfg

  def test_a_language_model_and_random_votes(self):
    cfg = self.config()
    workdir = people.epath.Path(self.folder / "run")
    workdir.mkdir()
    config = configuration.to_dataclass(people.Config, cfg)
    people.run(config, workdir)
    result = json.loads((workdir / "eval.json").read_text())
    self.assertEqual(result["people"], 20)
    self.assertFalse(result["own_reward"])
    page = (workdir / "report.html").read_text()
    self.assertIn("Whom does this reward model serve?", page)
    self.assertIn("Each person a dot", page)
    # Nobody's name leaves, unless it is asked for.
    for file in workdir.glob("*.*"):
      self.assertNotIn("secret", file.read_text(), file.name)
    self.assertFalse((workdir / people.PEOPLE).exists())
    cfg.people.save_people = True
    people.run(configuration.to_dataclass(people.Config, cfg), workdir)
    lines = (workdir / people.PEOPLE).read_text().splitlines()
    self.assertLen(lines, 20)
    self.assertIn("secret-0", (workdir / people.PEOPLE).read_text())

  def test_no_votes_are_refused(self):
    cfg = self.config()
    cfg.data.eval_files = ()
    with self.assertRaisesRegex(ValueError, "eval_files must name a file"):
      people.run(
        configuration.to_dataclass(people.Config, cfg),
        people.epath.Path(self.folder),
      )


if __name__ == "__main__":
  absltest.main()
