"""Benchmarks by person and by group: rows of PRISM and DICES to eval.json.

The rows have the columns that the data sets document, their values are made up.
"""

import csv
import json
import pathlib
import tempfile

from absl.testing import absltest
from etils import epath

from jaxalign.experiments import evaluate
from jaxalign.experiments.common import config as configuration
from tests import shipped
from tests.experiments import evaluate_test

PEOPLE = 12


def prism_rows():
  """Two conversations of each person: four models, then two replies of one."""
  for person in range(PEOPLE):
    for number, kind in enumerate(("unguided", "values guided")):
      conversation = f"c{2 * person + number}"
      for turn, replies in ((0, 4), (1, 2)):
        for place in range(replies):
          yield {
            "utterance_id": f"ut{person}{number}{turn}{place}",
            "interaction_id": f"int{person}{number}{turn}",
            "conversation_id": conversation,
            "user_id": f"user{person}",
            "turn": turn,
            "within_turn_id": place,
            "conversation_type": kind,
            "user_prompt": f"Why {turn}?",
            "model_response": f"answer {place} " * (1 + place),
            "model_name": "some-model",
            "model_provider": "some-provider",
            "score": 10 + 20 * ((place + person) % replies),
            "if_chosen": (place + person) % replies == replies - 1,
            "included_in_balanced_subset": True,
          }


def dices_rows():
  """Every rater on every item; two groups that find other items unsafe."""
  for rater in range(PEOPLE):
    for item in range(6):
      unsafe = item % 2 == rater % 2
      yield {
        "id": f"{rater}-{item}",
        "rater_id": str(rater),
        "rater_gender": "Woman",
        "rater_race": ("White", "Asian/Asian subcontinent")[rater % 2],
        "rater_raw_race": "x",
        "rater_age": "gen z",
        "rater_education": "College degree or higher",
        "phase": "Phase2",
        "item_id": str(item),
        "answer_time_ms": "1200",
        "context": f"USER: question {item}\nLAMDA: yes?\nUSER: {item}",
        "response": f"A reply {item}",
        "degree_of_harm": "Benign",
        "harm_type": "Safe",
        "safety_gold": "No",
        "Q1_whole_conversation_evaluation": "No",
        "Q2_harmful_content_overall": "No",
        "Q_overall": "Unsure" if item == 5 else ("Yes" if unsafe else "No"),
      }


def evaluated(variant, source):
  """What eval.json says of a small model on some files."""
  cfg = shipped.config("evaluate", variant)
  cfg.models = (evaluate_test.save_model(0),)
  cfg.data.eval_files = (source,)
  cfg.data.update(max_length=128, buckets=(128,))
  cfg.mesh.data = 1
  cfg.eval.num_samples = 50
  workdir = epath.Path(tempfile.mkdtemp())
  evaluate.run(configuration.to_dataclass(evaluate.Config, cfg), workdir)
  return json.loads((workdir / "eval.json").read_text()), cfg.models[0]


class BenchmarksTest(absltest.TestCase):
  def test_prism_by_person(self):
    file = pathlib.Path(tempfile.mkdtemp()) / "utterances.jsonl"
    lines = (f"{json.dumps(row)}\n" for row in prism_rows())
    file.write_text("".join(lines))
    result, model = evaluated("prism", f"HannahRoseKirk/prism-alignment:{file}")
    self.assertEqual(result["intervals_over"], "people")
    # Six pairs of four replies, one of two, in each of two conversations.
    scores = result["models"][model]["all"]
    self.assertEqual(scores["num_pairs"], PEOPLE * 2 * 7)
    people = result["breakdown"]["models"][model]["annotators"]
    self.assertEqual(people["number"], PEOPLE)
    self.assertEqual(
      {k: v["num_people"] for k, v in result["groups"].items()},
      {"unguided": PEOPLE, "values guided": PEOPLE},
    )

  def test_dices_by_rater_and_group(self):
    file = pathlib.Path(tempfile.mkdtemp()) / "dices.csv"
    rows = [*dices_rows()]
    with file.open("w", newline="") as opened:
      writer = csv.DictWriter(opened, fieldnames=[*rows[0]])
      writer.writeheader()
      writer.writerows(rows)
    result, model = evaluated("dices", f"dices_votes:{file}")
    self.assertEqual(result["intervals_over"], "people")
    # Of five items that a rater is sure of, two and three are on one side.
    self.assertEqual(result["models"][model]["all"]["num_pairs"], PEOPLE * 6)
    groups = result["groups"]
    self.assertEqual(
      {name: part["num_people"] for name, part in groups.items()},
      {"White": 6, "Asian/Asian subcontinent": 6},
    )
    # What one group finds safe, the other finds unsafe, and so the model's
    # accuracies add up to 1.
    values = [part["accuracy"][model]["value"] for part in groups.values()]
    self.assertAlmostEqual(sum(values), 1.0)


if __name__ == "__main__":
  absltest.main()
