"""New people placed by hand, under a personal model of known outputs."""

import jax
import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.algorithms import personal_rewards, reward_readout
from jaxalign.experiments.reward_model import personal_scores
from tests.experiments.reward_model import mixture_scores_test

PEOPLE, EACH = mixture_scores_test.PEOPLE, mixture_scores_test.EACH


def outputs(seed=0):
  """Of every pair's two responses, [N, 2, 3]; the last factor tells groups."""
  rng = np.random.default_rng(seed)
  found = 0.3 * rng.normal(size=(PEOPLE * EACH, 2, 3))
  side = np.tile(np.where(mixture_scores_test.GROUP, -1.0, 1.0), EACH)
  found[:, 0, 2] += 1.5 * side
  return found.astype(np.float32)


class PersonalScoresTest(parameterized.TestCase):
  @parameterized.parameters(*reward_readout.PERSONAL)
  def test_new_people_are_placed_by_their_first_pairs_alone(self, kind):
    read, data = (
      reward_readout.Readout(kind),
      mixture_scores_test.dataset(),
    )
    found = outputs()
    got = personal_scores.summarise(found, data, read)
    self.assertEqual((got["kind"], got["rank"]), (kind, 2))
    lines = {line["pairs_seen"]: line for line in got["new_users"]}
    self.assertEqual([*lines], [0, 1, 2, 5, 10])
    wide = found.astype(np.float64)
    common = wide[..., 0]
    if kind == "ideal_points":
      common = common - (wide[..., 1:] ** 2).sum(-1) / 2
    gaps = common[:, 0] - common[:, 1]
    apart = wide[:, 0, 1:] - wide[:, 1, 1:]
    place = np.repeat(np.arange(EACH), PEOPLE)
    scored = place >= 10
    jitted = jax.jit(personal_rewards.place)
    for shots, line in lines.items():
      nll, right = [], []
      for u in range(PEOPLE):
        mine = data.annotator == u
        seen = mine & (place < shots)
        at = jitted(gaps[mine], apart[mine], where=seen[mine])
        prob = personal_rewards.win_probability(
          gaps[mine & scored], apart[mine & scored], at
        )
        nll.append(-np.log(prob))
        right.append(np.asarray(prob) > 0.5)
      self.assertAlmostEqual(line["nll"], float(np.mean(nll)), places=4)
      self.assertAlmostEqual(line["accuracy"], float(np.mean(right)), places=6)
      self.assertEqual(line["num_pairs"], int(scored.sum()))
    # What tells groups apart is found in their pairs, for both of them.
    self.assertGreater(lines[10]["accuracy"], lines[0]["accuracy"] + 0.2)
    self.assertGreater(min(lines[10]["groups"].values()), 0.9)
    quick = personal_scores.quick(found, data, read)
    self.assertAlmostEqual(quick["eval/placed_nll"], lines[10]["nll"])
    self.assertAlmostEqual(quick["eval/accuracy"], float(np.mean(gaps > 0)))

  def test_without_names_there_is_the_shared_reward_alone(self):
    read = reward_readout.Readout("low_rank")
    data = mixture_scores_test.dataset(named=False)
    got = personal_scores.summarise(outputs(), data, read)
    self.assertEqual(got["new_users"], [])
    self.assertEqual(
      {*personal_scores.quick(outputs(), data, read)},
      {"eval/accuracy", "eval/nll"},
    )


if __name__ == "__main__":
  absltest.main()
