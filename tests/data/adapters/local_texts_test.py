"""Openings of stories as demonstrations, and as prompts on two sides."""

import json
import os
import tempfile

from absl.testing import absltest

from jaxalign.data.records import reader
from tests.data import real_data

TRAIN, TEST = "stories260k_lm/prompts_train", "stories260k_lm/prompts_test"


def read(spec: str) -> list:
  return list(reader.RecordStream((spec,), need_responses=False))


def sides_of(path: str) -> tuple[list, list]:
  return read(f"{TRAIN}:{path}"), read(f"{TEST}:{path}")


class FolderTextsTest(absltest.TestCase):
  def test_openings_part_by_their_text_alone(self):
    path = os.path.join(tempfile.mkdtemp(), "any.jsonl")
    with open(path, "w", encoding="utf-8") as file:
      for i in range(200):
        row = {"id": str(i), "text": f"Once {i % 100}", "ids": [1, i]}
        file.write(json.dumps(row) + "\n")
    train, test = sides_of(path)
    self.assertLen(train + test, 200)
    texts = [{r.prompt for r in side} for side in (train, test)]
    self.assertEmpty(texts[0] & texts[1])
    self.assertBetween(len(texts[1]), 10, 30)
    for record in train + test:
      self.assertEqual(record.responses, ())
      self.assertEqual(record.source, "stories260k_lm")

  def test_real_openings(self):
    path = real_data.folder("stories260k_lm") / "story_prompts.jsonl.gz"
    train, test = sides_of(path)
    self.assertEqual((len(train), len(test)), (720, 182))
    both = sorted(r.prompt for r in train + test)
    self.assertEqual(both, sorted(r.responses[0] for r in read(str(path))))


if __name__ == "__main__":
  absltest.main()
