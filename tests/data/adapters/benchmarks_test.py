"""Rows of RewardBench 1 and 2, as their cards describe them."""

import json
import tempfile

from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.records import reader, record
from jaxalign.data.records.chat import Turn

FIRST = {
  "prompt": "Why?",
  "chosen": "Because.",
  "chosen_model": "a",
  "rejected": "No.",
  "rejected_model": "b",
  "subset": "llmbar-natural",
  "id": 30,
}
SECOND = {
  "id": "ref:3",
  "prompt": "Name a colour of the rainbow.",
  "chosen": ["Red.", "Blue."],
  "rejected": ["Pink.", "Brown.", "Black."],
  "num_correct": 2,
  "num_rejected": 3,
  "total_completions": 5,
  "models": ["a"] * 5,
  "subset": "Ties",
  "additional_metadata": None,
}


def read(adapter, *rows, **options):
  path = epath.Path(tempfile.mkdtemp()) / "rows.jsonl"
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return list(reader.RecordStream((f"{adapter}:{path}",), **options))


class RewardBenchTest(parameterized.TestCase):
  def test_a_pair_is_asked_by_a_user(self):
    (found,) = read("allenai/reward-bench", FIRST)
    self.assertEqual(found.prompt, (Turn("user", "Why?"),))
    self.assertEqual(found.responses, ("Because.", "No."))
    self.assertEqual((found.group, found.id), ("llmbar-natural", "30"))
    self.assertIsNone(found.ratings)

  def test_right_answers_tie_and_are_above_wrong_ones(self):
    (found,) = read("allenai/reward-bench-2", SECOND)
    self.assertEqual(found.ratings, {"overall": (1.0, 1.0, 0.0, 0.0, 0.0)})
    pairs = record.pairs_of(found)
    self.assertLen(pairs, 7)  # of ten, less those of two wrong answers
    self.assertEqual([pair.tie for pair in pairs], [True, *[None] * 6])

  def test_one_right_answer_is_the_best_of_four(self):
    row = SECOND | dict(chosen=["Red."], num_correct=1, subset="Focus")
    (found,) = read("allenai/reward-bench-2", row)
    self.assertEqual((found.num_ranked, len(found.responses)), (1, 4))
    self.assertLen(record.pairs_of(found), 3)

  @parameterized.parameters(
    (dict(num_correct=1), "num_correct must be 2, the number of chosen, got 1"),
    (dict(rejected=[]), "must hold one or more, got 2 and 0"),
    (dict(chosen="Red."), "chosen must be a list, got text"),
    (dict(subset=None), "missing field 'subset'"),
    (dict(mystery=1), "unknown column 'mystery'"),
  )
  def test_a_bad_row(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      read("allenai/reward-bench-2", SECOND | changes)


if __name__ == "__main__":
  absltest.main()
