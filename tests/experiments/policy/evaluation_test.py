"""What sample answers are kept, and how sure the means over prompts are."""

import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.experiments.policy import evaluation

# Three prompts with two answers each, to the heads and to the groups.
HEADS = np.array([[0, 5], [1, 4], [2, 3], [3, 2], [4, 1], [5, 0]], np.float32)
GROUPS = np.array([[9, 0], [7, 0], [6, 1], [5, 1], [3, 2], [0, 3]], np.float32)
TEXTS = [("Q1", "a"), ("Q2", "b")]


class AnswersTest(absltest.TestCase):
  def test_the_first_answer_of_a_prompt_goes_with_its_utilities(self):
    found = evaluation.describe(
      TEXTS, (HEADS, ("first", "second")), (GROUPS, ("warm", "brief")), 3
    )
    self.assertEqual(found["prompts"], ["Q1", "Q2"])
    self.assertEqual(found["answers"], ["a", "b"])
    self.assertEqual(
      found["utilities"],
      [{"warm": 9.0, "brief": 0.0}, {"warm": 6.0, "brief": 1.0}],
    )
    means = GROUPS.reshape(3, 2, 2).mean(axis=1)
    expected = means.std(axis=0, ddof=1) / np.sqrt(3)
    self.assertAlmostEqual(
      found["standard_error"]["warm"], expected[0], places=5
    )
    closest = {k: v["group"] for k, v in found["closest"].items()}
    self.assertEqual(closest, {"first": "brief", "second": "warm"})
    self.assertGreater(found["closest"]["first"]["correlation"], 0.9)

  def test_without_a_judge_the_source_says_what_answers_are_worth(self):
    found = evaluation.describe(TEXTS, (HEADS, ("warm", "brief")), None, 3)
    self.assertEqual(found["utilities"][1], {"warm": 2.0, "brief": 3.0})
    self.assertEqual(found["closest"], {})

  def test_a_name_of_the_judge_and_a_constant_need_no_other_name(self):
    heads = np.stack([HEADS[:, 0], np.ones(6, np.float32)], axis=1)
    names = ("warm", "flat")
    truth = (GROUPS, ("warm", "brief"))
    self.assertEqual(evaluation.closest((heads, names), truth), {})

  def test_the_start_is_kept_and_the_end_replaced(self):
    path = epath.Path(tempfile.mkdtemp()) / evaluation.ANSWERS
    for iteration in (0, 5, 9):
      evaluation.keep(path, iteration, {"answers": [str(iteration)]})
    found = json.loads(path.read_text())
    self.assertEqual(found["start"], {"iteration": 0, "answers": ["0"]})
    self.assertEqual(found["end"], {"iteration": 9, "answers": ["9"]})
    # A run that begins anew in the same folder has a start of its own.
    evaluation.keep(path, 0, {"answers": ["new"]})
    found = json.loads(path.read_text())
    self.assertEqual(found["start"]["answers"], ["new"])


if __name__ == "__main__":
  absltest.main()
