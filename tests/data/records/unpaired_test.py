"""Single responses from TRL's form, ratings and pairs, each beside another."""

import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.records import reader, unpaired
from jaxalign.data.records.record import Record


def rows_of(*records, **options):
  return [
    (row.prompt, *row.responses, row.chosen_prob)
    for row in unpaired.UnpairedStream(records, **options)
  ]


def rated(prompt, response, value):
  return Record(prompt, (response,), ratings={"desirable": (value,)})


class UnpairedStreamTest(parameterized.TestCase):
  def test_the_other_response_is_that_of_the_prompt_before(self):
    found = rows_of(
      rated("P", "a", 1.0),
      rated("P", "b", 0.0),
      rated("Q", "c", 0.0),
      rated("Q", "d", 1.0),
      rated("R", "e", 1.0),
    )
    self.assertEqual(
      found,
      [
        ("P", "a", "c", 1.0),
        ("P", "b", "c", 0.0),
        ("Q", "c", "b", 0.0),
        ("Q", "d", "b", 1.0),
        ("R", "e", "d", 1.0),
      ],
    )

  def test_a_pair_is_two_responses_with_its_label(self):
    pair = Record("P", ("a", "b"), votes_chosen=3, votes_rejected=1, id="x")
    found = list(
      unpaired.UnpairedStream([pair, rated("Q", "c", 1.0)], threshold=0.5)
    )
    self.assertEqual(
      [(row.id, row.responses, row.chosen_prob) for row in found],
      [
        ("x-0", ("a", "c"), 0.75),
        ("x-1", ("b", "c"), 0.25),
        (None, ("c", "b"), 1.0),
      ],
    )

  def test_ratings_from_the_threshold_on_are_wanted(self):
    records = [
      Record("P", ("a", "b", "c"), ratings={"overall": (3.0, 4.0, 1.0)}),
      Record("Q", ("d",), ratings={"overall": (2.0,)}),
    ]
    found = rows_of(*records, rating="overall", threshold=3.0)
    self.assertEqual([row[-1] for row in found], [1, 1, 0, 0])

  def test_names_go_with_every_response(self):
    record = Record(
      "P", ("a",), ratings={"desirable": (1.0,)}, source="s", annotator="u",
      group="g",
    )  # fmt: skip
    row, _ = unpaired.UnpairedStream([record, rated("Q", "b", 0.0)])
    self.assertEqual((row.source, row.annotator, row.group), ("s", "u", "g"))

  def test_it_can_be_read_again(self):
    stream = unpaired.UnpairedStream([rated("P", "a", 1.0), rated("Q", "b", 0)])
    self.assertEqual(list(stream), list(stream))

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "two prompts or more.*got 2"):
      rows_of(rated("P", "a", 1.0), rated("P", "b", 1.0))
    with self.assertRaisesRegex(ValueError, "without a rating 'helpful' each"):
      rows_of(rated("P", "a", 1.0), rating="helpful")


class CompletionTest(parameterized.TestCase):
  def read(self, *rows, **options):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    file = folder / "a.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return list(reader.RecordStream([str(file)], **options))

  def test_trl_form_is_a_rated_response_where_it_is_asked_for(self):
    row = {"prompt": "P", "completion": " a", "label": False, "group": "g"}
    chat = {
      "prompt": [{"role": "user", "content": "P"}],
      "completion": [{"role": "assistant", "content": "a"}],
      "label": True,
    }
    found = self.read(row, chat, unpaired=True)
    self.assertEqual([r.responses for r in found], [(" a",), ("a",)])
    self.assertEqual([r.ratings["desirable"] for r in found], [(0.0,), (1.0,)])
    self.assertEqual(found[0].group, "g")
    with self.assertRaisesRegex(ValueError, "recipe 'kto' learns from"):
      self.read(row)

  @parameterized.parameters(1, None, "yes")
  def test_a_label_is_true_or_false(self, label):
    with self.assertRaisesRegex(ValueError, "a.jsonl:1: a completion needs a"):
      self.read({"prompt": "P", "completion": "a", "label": label},
                unpaired=True)  # fmt: skip


class TwinStreamTest(absltest.TestCase):
  def test_a_response_alone_stands_beside_itself_and_pairs_as_they_are(self):
    pair = Record("P", ("a", "b"), votes_chosen=3, votes_rejected=1)
    alone = Record("Q", ("c",), label_votes=((1, 2),), group="g", id="x")
    many = Record("R", ("d", "e", "f"), num_ranked=1)
    stream = unpaired.TwinStream([pair, alone, many])
    found = list(stream)
    self.assertEqual(found[0], pair)
    self.assertEqual(
      found[1],
      Record(
        "Q", ("c", "c"), label_votes=((1, 2),), group="g", id="x", tie=True
      ),
    )
    self.assertEqual(
      [one.responses for one in found[2:]], [("d", "e"), ("d", "f")]
    )
    self.assertEqual(list(stream), found)


if __name__ == "__main__":
  absltest.main()
