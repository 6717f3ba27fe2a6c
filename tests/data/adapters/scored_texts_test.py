"""Whole dialogues with a score each: the rows that DSP publishes."""

import json
import tempfile

from absl.testing import absltest
from etils import epath

from jaxalign.data.records import reader, record

ASKED = "## Human:\nWhy do cats knead?\n\n## Assistant:"
HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Bye\n\nAssistant:"


def read(rows, name="webgpt.test.json"):
  path = epath.Path(tempfile.mkdtemp()) / name
  path.write_text(json.dumps(rows))
  return reader.read_records([f"scored_texts:{path}"])[0]


class ScoredTextsTest(absltest.TestCase):
  def test_webgpt_and_hh_as_they_are_published(self):
    records = read(
      [
        {"text": [f"{ASKED}\nOne.", f"{ASKED}\nTwo."], "score": [0.5, 1.5]},
        {"text": [f"{ASKED}\nA.", f"{ASKED}\nB."], "score": [1.0, 1.0]},
        {"text": [f"{HH} Yes", f"{HH} Assistant: no"], "score": [1, 0]},
      ]
    )
    self.assertEqual([r.prompt for r in records], [ASKED, ASKED, HH])
    self.assertEqual(records[0].responses, ("\nTwo.", "\nOne."))
    self.assertEqual(records[0].target_prob, 1.0)
    self.assertEqual((records[1].tie, records[1].target_prob), (True, 0.5))
    self.assertEqual(records[2].responses, (" Yes", " Assistant: no"))
    self.assertEqual({r.source for r in records}, {"webgpt"})

  def test_four_answers_are_a_ranking_whose_ties_stay_ties(self):
    texts = [f"{ASKED} {i}" for i in range(4)]
    (ranked,) = read([{"text": texts, "score": [1, 3, 1, 2]}])
    self.assertEqual(ranked.responses, (" 1", " 3", " 0", " 2"))
    pairs = record.expand_rankings([ranked])
    self.assertLen(pairs, 6)
    self.assertEqual([bool(p.tie) for p in pairs], [False] * 5 + [True])

  def test_what_cannot_be_a_record(self):
    for row, message in (
      ({"text": ["a", "b"], "score": [1, 0]}, "must share a prompt that ends"),
      ({"text": [ASKED], "score": [1]}, "got 1 and 1"),
      ({"text": [ASKED, ASKED], "score": [1]}, "got 2 and 1"),
      ({"text": [ASKED, 3], "score": [1, 0]}, "text must be"),
      ({"text": [ASKED, ASKED], "score": [1, "x"]}, "score must be"),
      ({"text": [ASKED, ASKED], "score": [1, 0], "x": 1}, "unknown column 'x'"),
    ):
      with self.assertRaisesRegex(ValueError, message):
        read([row])


if __name__ == "__main__":
  absltest.main()
