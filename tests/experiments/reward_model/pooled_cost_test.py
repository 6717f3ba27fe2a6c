"""Cost of a pooled reward to latent groups, against sums by hand."""

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.experiments.reports import mixture, pipeline
from jaxalign.experiments.reward_model import pooled_cost
from tests import references

BETA = 0.3


def heads(number: int = 3, pairs: int = 400, seed: int = 0):
  """Gaps of heads that are linear in four features of length 1."""
  rng = np.random.default_rng(seed)
  tastes = 3 * rng.normal(size=(number, 4))
  features = rng.normal(size=(pairs, 2, 4))
  features /= np.linalg.norm(features, axis=-1, keepdims=True)
  return (features[:, 0] - features[:, 1]) @ tastes.T


class PooledCostTest(parameterized.TestCase):
  def test_two_groups_by_hand(self):
    gaps = np.array([[2.0, -2.0], [1.0, 1.0]])
    found = pooled_cost.of_mixture(gaps, np.array([0.75, 0.25]), beta=BETA)
    up, one = references.sigmoid(2.0), references.sigmoid(1.0)
    epsilon = (2 * up - 1) / 2  # the second pair divides nobody
    for group, share in zip(found["groups"], (0.75, 0.25), strict=True):
      self.assertAlmostEqual(group["distinctiveness"], epsilon, places=6)
      self.assertAlmostEqual(group["diversity"], epsilon, places=6)
      rest = epsilon * (1 - share)
      self.assertAlmostEqual(group["mismatch_bound"], rest / 4, places=6)
      self.assertAlmostEqual(group["mismatch_bound_tight"], 2 * rest, places=6)
      self.assertAlmostEqual(
        group["gap_bound"], rest**2 / (64 * BETA**2 * 2 / BETA), places=6
      )
    self.assertEqual([g["farthest"] for g in found["groups"]], [1, 0])
    said = 0.75 * up + 0.25 * (1 - up)
    logit = np.array([np.log(said / (1 - said)), np.log(one / (1 - one))])
    crowd = found["pooled"][pooled_cost.CROWD]
    np.testing.assert_allclose(
      crowd["mismatch"],
      [np.abs(logit - gaps[:, k]).mean() / 2 for k in (0, 1)],
      rtol=1e-9,
    )
    policy = references.sigmoid(logit / BETA)
    for k in (0, 1):
      best = references.sigmoid(gaps[:, k] / BETA)
      kl = policy * np.log(policy / best)
      kl += (1 - policy) * np.log((1 - policy) / (1 - best))
      self.assertAlmostEqual(crowd["gap"][k], BETA * kl.mean(), places=5)

  @parameterized.parameters(0, 1, 2)
  def test_what_is_measured_is_at_least_what_lemma_1_promises(self, seed):
    shares = np.random.default_rng(seed).dirichlet(np.ones(3))
    found = pooled_cost.of_mixture(heads(seed=seed), shares, beta=BETA)
    measured = found["pooled"][pooled_cost.CROWD]
    promised = [group["mismatch_bound_tight"] for group in found["groups"]]
    self.assertGreater(max(promised), 0.0)
    for mismatch, bound in zip(measured["mismatch"], promised, strict=True):
      self.assertGreaterEqual(mismatch, bound - 1e-6)

  def test_groups_that_agree_cost_nothing(self):
    gaps = np.repeat(heads(1), 2, axis=1)
    found = pooled_cost.of_mixture(gaps, np.array([0.9, 0.1]), beta=BETA)
    for group in found["groups"]:
      self.assertEqual(group["distinctiveness"], 0.0)
      self.assertEqual(group["gap_bound"], 0.0)
    np.testing.assert_allclose(
      found["pooled"][pooled_cost.CROWD]["gap"], 0.0, atol=1e-5
    )

  def test_a_rarer_group_loses_more(self):
    gaps = heads(2)
    lost = [
      pooled_cost.of_mixture(gaps, np.array([1 - share, share]), beta=BETA)
      for share in (0.4, 0.2, 0.05)
    ]
    gap = [one["pooled"][pooled_cost.CROWD]["gap"][1] for one in lost]
    self.assertEqual(gap, sorted(gap))
    self.assertGreater(gap[-1], 2 * gap[0])

  def test_a_trained_model_is_measured_beside(self):
    gaps = heads(2)
    found = pooled_cost.of_mixture(
      gaps, np.array([0.5, 0.5]), beta=BETA, pooled={"one": gaps[:, 0]}
    )["pooled"]["one"]
    self.assertEqual(found["mismatch"][0], 0.0)
    self.assertLess(found["gap"][0], 1e-5)
    self.assertGreater(found["gap"][1], 0.1)

  def test_large_rewards_stay_finite(self):
    gaps = np.array([[1e4, -1e4], [-1e4, 1e4]])
    found = pooled_cost.of_mixture(gaps, np.array([0.5, 0.5]), beta=0.05)
    values = found["pooled"][pooled_cost.CROWD]
    self.assertTrue(np.isfinite([values["mismatch"], values["gap"]]).all())


class SectionTest(absltest.TestCase):
  def scores(self, gaps, shares):
    cost = pooled_cost.of_mixture(gaps, shares, beta=BETA)
    heads = {"groups": [], "accuracy": [], "num_pairs": [], "all": []}
    return {"weights": shares.tolist(), "heads": heads, "pooled_cost": cost}

  def test_says_where_the_bounds_are_vacuous(self):
    # The third head is as the first, so neither is distinct.
    gaps = heads(2)[:, [0, 1, 0]]
    scores = self.scores(gaps, np.array([0.5, 0.3, 0.2]))
    table = mixture.pooled_section("m", scores)
    self.assertLen(table.rows, 3)
    self.assertIn("head 0, head 2", table.note)
    self.assertIn("Bradley-Terry", table.note)
    one = scores["pooled_cost"]
    self.assertIn(f"{one['groups'][1]['gap_bound']:.1e}", table.note)

  def test_the_page_of_a_pipeline_has_the_table_of_each_mixture(self):
    scores = self.scores(heads(2), np.array([0.8, 0.2]))
    found = pipeline.pooled_sections(
      {
        "one_reward": {"models": {}, "mixtures": {}},
        "mixture": {"mixtures": {"model": scores, "runs/b": scores}},
        "policy": {"eval/kl": 1.0},
      }
    )
    title = "What one pooled reward costs the groups of mixture"
    self.assertEqual([one.title for one in found], [title, f"{title}, runs/b"])

  def test_is_left_out_of_files_from_before(self):
    self.assertIsNone(mixture.pooled_section("m", {"weights": [0.5, 0.5]}))


if __name__ == "__main__":
  absltest.main()
