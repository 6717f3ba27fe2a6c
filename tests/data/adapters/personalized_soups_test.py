"""Pairs of Personalized Soups: people of one group each, and two sides."""

import collections
import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import personalized_soups, registry
from jaxalign.data.records import reader

NAME = "personalized_soups"


def row(number: int, group: str) -> dict[str, str]:
  asked = f"What is {number}? {personalized_soups.INSTRUCTIONS[group]}"
  return {
    "user_input": asked,
    "completion_a": f"Good {number}.",
    "completion_b": f"Bad {number}.",
  }


class PersonalizedSoupsTest(parameterized.TestCase):
  def files(self, number: int, *, as_list: bool = True):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    for group in ("P1A", "P1B"):
      rows = [row(n, group) for n in range(number)]
      text = "\n".join(map(json.dumps, rows))
      if as_list:
        text = json.dumps(rows, indent=1)
      (folder / f"{group}.json").write_text(text)
    return folder

  def read(self, folder, adapter=NAME):
    files = tuple(f"{adapter}:{folder}/{g}.json" for g in ("P1A", "P1B"))
    return list(reader.RecordStream(files))

  @parameterized.parameters(True, False)
  def test_a_pair(self, as_list):
    records = self.read(self.files(2, as_list=as_list))
    self.assertLen(records, 4)
    first = records[0]
    self.assertEqual(first.prompt, "<|user|>\nWhat is 0? \n<|assistant|>\n")
    self.assertEqual(first.responses, ("Good 0.", "Bad 0."))
    self.assertEqual(
      (first.annotator, first.group, first.source), ("P1A-00", "P1A", NAME)
    )
    self.assertEqual(records[3].annotator, "P1B-01")
    self.assertLen({record.id for record in records}, 4)

  @parameterized.parameters(*personalized_soups.INSTRUCTIONS)
  def test_no_instruction_is_left_in_a_prompt(self, group):
    found = personalized_soups.prompt_of(row(7, group)["user_input"])
    self.assertEqual(found, "<|user|>\nWhat is 7? \n<|assistant|>\n")

  def test_people_are_of_one_size_and_one_side(self):
    folder = self.files(3100)
    train = self.read(folder, f"{NAME}/train")
    held_out = self.read(folder, f"{NAME}/eval")
    self.assertLen(train, 3000)  # half of the first 3,000 rows of each
    self.assertLen(held_out, 3000)
    counts = collections.Counter(r.annotator for r in train + held_out)
    self.assertEqual({*counts.values()}, {75})
    self.assertLen(counts, 80)
    people = [{r.annotator for r in side} for side in (train, held_out)]
    self.assertEmpty(people[0] & people[1])
    self.assertEqual([*map(len, people)], [40, 40])
    self.assertLen(self.read(folder), 6200)

  def test_a_bad_row_is_named(self):
    adapter = registry.get(NAME)
    bad = row(0, "P1A") | {"completion_b": None}
    found = list(adapter.apply([("a/P1A.json:1", bad)]))
    self.assertRegex(str(found[0][1]), "missing field 'completion_b'")
    found = list(adapter.apply([("a/P1A.json:1", {"other": 1})]))
    self.assertRegex(str(found[0][1]), "unknown column 'other'")


if __name__ == "__main__":
  absltest.main()
