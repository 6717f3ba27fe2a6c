"""Each page's headline holds the numbers of the JSON that it comes from."""

import copy

from absl.testing import absltest, parameterized

from jaxalign.experiments.reports import (
  audit,
  best_of_n,
  denoise,
  mixture,
  people,
  perplexity,
  personas,
  pipeline,
  reward_bench,
  reward_model,
  tabular,
  win_rates,
)

RATES = {
  "oracle": {
    "all": {"num_pairs": 200, "score": 0.63, "low": 0.56, "high": 0.7}
  },
  "judge": {"all": {"num_pairs": 90, "score": 0.52, "low": 0.42, "high": 0.62}},
  "mute": {"all": {"num_pairs": 0, "score": None, "low": None, "high": None}},
}
LIKELY = {
  **{"texts": 1200, "tokens": 30_000},
  **{"value": 12.5, "low": 12.0, "high": 13.0},
  **{"ratio": 1.1, "ratio_low": 1.05, "ratio_high": 1.15},
}
MIXTURE = {
  "weights": [0.2, 0.8],
  "pooled": {"accuracy": 0.612},
  "heads": {"groups": ["warm", "brief"], "accuracy": [[0.4, 0.9], [0.8, 0.3]]},
  "new_users": [
    {"pairs_seen": 0, "accuracy": 0.75},
    {"pairs_seen": 10, "accuracy": 0.871},
  ],
}


def model(value, low, high):
  accuracy = {"value": value, "low": low, "high": high}
  return {"all": {"num_pairs": 2000, "accuracy": accuracy}}


REWARD = {
  "models": {"a": model(0.712, 0.69, 0.73)},
  "mixtures": {},
  "baselines": {"all": {"chance": 0.5, "bag_of_words": 0.663}},
  "breakdown": {
    "models": {"a": {"worst": {"group": {"name": "brief", "accuracy": 0.41}}}}
  },
}
AUDIT = {
  "leakage": {"prompts": 0, "responses": 3},
  "structure": [
    {"label": "annotator", "units": 200, "p_value": 0.01},
    {"label": "group", "units": 2, "p_value": 0.4},
  ],
  "splits": {
    name: {
      "pairs": pairs,
      "rated": None,
      "repeats": {"contradicted": 0},
      "longer_wins": {"all": {"value": 0.5, "low": 0.4, "high": 0.6}},
      "first_wins": {"value": None, "low": 0.0, "high": 1.0},
      "longer_than_max_length": 0,
      "annotators": {"named": 2, "busiest_share": 0.5},
    }
    for name, pairs in (("train", 4000), ("eval", 1000))
  },
  "baselines": {"always_longer": 0.568, "bag_of_words": 0.744},
  "resolution": {
    "pairs": {
      "n": 1000,
      "accuracy_difference": 0.048,
      "ece_difference": float("nan"),
    }
  },
}
FAIR = {
  "groups": ["warm", "brief"],
  "best": "oracle",
  "kl": 3.14,
  "start": {"warm": 0.2, "brief": -0.91},
  "policies": {
    name: {"at_equal_kl": {"worst": worst}, "share": share}
    for name, worst, share in (
      ("single", -0.98, -0.09),
      ("maxmin", -0.28, 0.79),
      ("oracle", -0.11, 1.0),
    )
  },
}
DENOISED = {
  "train": {
    "pairs": 4000,
    "below_0": 0.073,
    "accuracy": {"members": [0.7, 0.8]},
    "judge": {"fraction": 0.1, "precision": 0.824, "contradicted": 0.189},
  }
}
BEST = {
  "sizes": [1, 16],
  "names": ["least"],
  "oracle_names": ["warm"],
  "oracle": {
    "value": [[0.1], [0.4]],
    "low": [[0.0], [0.3]],
    "high": [[0.2], [0.5]],
  },
}
PERSONAS = {
  "labelled": 9,
  "responses": 12,
  "votes": {"valid": 36},
  "personas": {"a": {}, "b": {}, "c": {}},
  "label_votes": {"good": 27, "bad": 9},
  "two_agree": 0.81,
}


def world(*worst):
  return {
    name: {"utilities": [0.9, low], "share": 0.97}
    for name, low in zip(("single", "maxmin"), worst, strict=True)
  }


HEADLINES = (
  (
    reward_bench.headline,
    {"version": 2, "outputs": {"a": {"overall": 0.5}, "b": {"overall": 0.625}}},
    "a scores 50.0 % on RewardBench 2; b scores 62.5 % on RewardBench 2, the "
    "mean of the sections that the files have. A random reward would have 25 %",
  ),
  (
    win_rates.headline,
    RATES,
    "oracle prefers the first file's answer in 63.0 % [56.0, 70.0] of 200 "
    "prompts, significant; judge prefers the first file's answer in 52.0 % "
    "[42.0, 62.0] of 90 prompts, not significant. No difference would be 50 %.",
  ),
  (
    mixture.headline,
    MIXTURE,
    "2 latent groups fitted, 80 % / 20 % of the people. New people are "
    "predicted at 87.1 % after 10 of their pairs, at 75.0 % before the first. "
    "Without knowing who asks, 61.2 % of all held-out pairs are predicted.",
  ),
  (
    mixture.headline,
    {k: v for k, v in MIXTURE.items() if k != "new_users"},
    "80 % / 20 % of the people. Without knowing who asks, 61.2 % of all "
    "held-out pairs are predicted.",
  ),
  (
    reward_model.headline,
    REWARD,
    "The model ranks 71.2 % [69.0, 73.0] of 2,000 held-out pairs as people "
    "did, above the best baseline: chance 50.0 %, bag of words 66.3 %.\n\n"
    "Worst served by it: brief at 41.0 %.",
  ),
  (
    reward_model.headline,
    REWARD | {"models": {"a": model(0.6, 0.58, 0.62)}},
    "did, below the best baseline:",
  ),
  (
    reward_model.headline,
    REWARD | {"models": {"a": model(0.66, 0.64, 0.68)}},
    "did, not significantly different from the best baseline:",
  ),
  (
    reward_model.headline,
    REWARD
    | {"mixtures": {"b": MIXTURE}, "models": {"b, head 0": model(0.5, 0, 1)}},
    "pairs are predicted.\n\nWithout a model, on all pairs: chance 50.0 %",
  ),
  (
    reward_model.headline,
    REWARD | {"mixtures": {"b": MIXTURE}},
    "pairs are predicted.\n\na, a single model, ranks 71.2 % [69.0, 73.0] of",
  ),
  (
    reward_model.headline,
    REWARD | {"personal": {"a": {"new_users": MIXTURE["new_users"]}}},
    "bag of words 66.3 %.\n\nNew people are predicted at 87.1 % after 10 of "
    "their pairs, at 75.0 % before the first.\n\nWorst served by it",
  ),
  (
    audit.headline,
    AUDIT,
    "4,000 pairs to train on, 1,000 pairs to test. Annotators do not share one "
    "preference (p = 0.01): one pooled model will not fit all. The splits "
    "leak; see below.\n\nA reward model must beat an accuracy of 56.8 % "
    "(always longer) and 74.4 % (bag of words).",
  ),
  (
    audit.headline,
    AUDIT | {"structure": AUDIT["structure"][1:]},
    "No significant difference between annotators, groups or sources.",
  ),
  (
    lambda found: pipeline.policy_headline(found, {}),
    FAIR,
    "At equal KL (3.1 nats per response) the worst-off group gets a utility of "
    "-0.28 with maxmin, against -0.91 at the start, -0.98 with single, -0.11 "
    "with oracle. maxmin reaches 79 % of the gain of oracle, which knows the "
    "groups.",
  ),
  (
    lambda found: pipeline.policy_headline(
      found,
      {
        name: {"end": {"standard_error": {"warm": 0.1, "brief": 0.2}}}
        for name in FAIR["policies"]
      },
    ),
    FAIR,
    "-0.98 with single, -0.11 with oracle (not significant).",
  ),
  (
    pipeline.groups_headline,
    {
      "one_reward": {"models": {"a": model(0.75, 0, 1)}, "mixtures": {}},
      "mixture": {"models": {"b": 0}, "mixtures": {"b": MIXTURE}},
    },
    "Without knowing who asks, 61.2 % of all held-out pairs are predicted. A "
    "single pooled model (one_reward) ranks 75.0 % of pairs right.",
  ),
  (
    perplexity.headline,
    {"models": {"start": {"all": LIKELY}, "tuned": {"all": LIKELY}}},
    "start has a perplexity of 12.500 [12.000, 13.000] on 1,200 texts of "
    "30,000 tokens, tuned 1.100 [1.050, 1.150] times that.",
  ),
  (pipeline.result_of, {"rates": RATES}, "oracle prefers the first file's"),
  (pipeline.result_of, BEST, "True utility of the best of 16 samples"),
  (pipeline.result_of, REWARD, "The model ranks 71.2 %"),
  (pipeline.result_of, DENOISED, "7.3 % of 4,000 training labels"),
  (
    pipeline.result_of,
    {"eval/judge/warm": 0.5, "eval/kl": 2.0, "eval/ended": 1.0},
    "true utility warm 0.500, kl 2.000",
  ),
  (
    denoise.headline,
    DENOISED,
    "7.3 % of 4,000 training labels are contradicted by an ensemble of 2 "
    "models. Of the 10 % it trusts least, a second judge contradicts 82.4 %, "
    "of all labels 18.9 %.",
  ),
  (
    best_of_n.headline,
    BEST,
    "True utility of the best of 16 samples, against that of 1: warm "
    "0.400 [0.300, 0.500] against 0.100.",
  ),
  (
    personas.headline,
    PERSONAS,
    "9 of 12 responses were labelled by 36 valid votes of 3 personas. Two "
    "personas agree on 81.0 %; votes drawn by the labels' shares alone agree "
    "on 62.5 %.",
  ),
  (
    tabular.headline,
    {"0": world(0.1, 0.3), "1": world(0.2, 0.5)},
    "The worst-off group is best served by maxmin: utility 0.400; single "
    "0.150. Each objective reaches at least 97.0 %",
  ),
)


def score(value, spread=0.01):
  return {"value": value, "low": value - spread, "high": value + spread}


PEOPLE = {
  "own_reward": True,
  "people": 1234,
  "num_pairs": 5,
  "always_longer": 0.56,
  "components": 2,
  "groups": [{"share": 0.6}, {"share": 0.4}],
  "accuracy": {
    "before": score(0.7),
    "after": score(0.75),
    "gain": score(0.05),
  },
  "worst_tenth": {
    "before": score(0.4) | {"if_alike": 0.5},
    "after": score(0.45) | {"if_alike": 0.55},
  },
}
ONE_TASTE = PEOPLE | {
  "own_reward": False,
  "components": 1,
  "groups": [{"share": 1.0}],
  "accuracy": PEOPLE["accuracy"] | {"gain": score(0.0)},
}


class HeadlinesTest(parameterized.TestCase):
  @parameterized.parameters(*HEADLINES)
  def test_says_what_the_json_holds(self, headline, result, expected):
    before = copy.deepcopy(result)
    self.assertIn(expected, headline(result))
    self.assertEqual(str(result), str(before))

  @parameterized.parameters(
    (PEOPLE, "The model ranks 70.0 % [69.0, 71.0] of the pairs of 1,234 people "
     "as they did (chance 50 %, always longer 56.0 %); after 5 of their own "
     "pairs 75.0 % [74.0, 76.0], +5.0 points [+4.0, +6.0]."),
    (PEOPLE, "2 latent groups explain people whom the heads have not met "
     "better than one: 60 % / 40 % of the people."),
    (PEOPLE, "served worst: 40.0 %, after 5 of their own pairs 45.0 %; if all "
     "were served alike, chance would make it 50.0 %."),
    (ONE_TASTE, "+0.0 points [-1.0, +1.0], not significant."),
    (ONE_TASTE, "A pooled head on the model ranks"),
    (ONE_TASTE, "no latent groups were found"),
  )  # fmt: skip
  def test_people(self, result, expected):
    self.assertIn(expected, people.headline(result))

  def test_nothing_judged_and_nothing_to_train_on(self):
    self.assertEqual(
      win_rates.headline({"mute": RATES["mute"]}),
      "No pair of answers was judged.",
    )
    self.assertEqual(
      audit.headline(AUDIT | {"splits": {"train": {}}}),
      "There are no pairs to train on.",
    )
    self.assertEqual(pipeline.groups_headline({}), "")

  def test_heads_are_called_by_the_group_they_predict_best(self):
    self.assertEqual(
      mixture.head_names(MIXTURE),
      ["head 0, best on brief", "head 1, best on warm"],
    )

  def test_every_verdict_that_asks_for_something_has_its_command(self):
    leak, annotators, groups, _ = audit.verdicts(AUDIT)
    self.assertIn("split_by=prompt", leak.then)
    self.assertIn("configs/rm_mixture_crowd.py", annotators.then)
    self.assertIn("are not significant (p = 0.4)", groups.text)
    self.assertIn("configs/rm_bt_crowd.py", groups.then)
    sources = [{"label": "source", "units": 2, "p_value": 0.01}]
    _, known, _ = audit.verdicts(AUDIT | {"structure": sources})
    self.assertIn("configs/rm_more_crowd.py", known.then)


if __name__ == "__main__":
  absltest.main()
