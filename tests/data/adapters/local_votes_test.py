"""Votes beside texts: small files of the shape, then the real folders."""

import collections

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import registry
from jaxalign.data.records import reader, splits
from jaxalign.data.records.record import parse_record
from tests.data import real_data

CONVARG = {
  "arguments": [
    {"arg_id": "1", "debate": "D", "stance": "S", "text": "one"},
    {"arg_id": "2", "debate": "D", "stance": "S", "text": "two"},
  ]
}
VOTES = {
  "topic": "t",
  "arg1": "1",
  "arg2": "2",
  "gold": "a1",
  "votes": [
    {"worker": "w1", "value": "a1", "competence": 1, "worker_stance": "same"},
    {"worker": "w2", "value": "a2", "competence": 0, "worker_stance": None},
    {"worker": "w3", "value": "equal", "competence": None},
  ],
}
SAID = [
  {"role": "user", "content": "Q1"},
  {"role": "assistant", "content": "A1"},
  {"role": "user", "content": "Q2"},
  {"role": "assistant", "content": "A2"},
]
MT_BENCH = {
  "answers": [
    {"question_id": 8, "model": "m", "conversation": SAID},
    {
      "question_id": 8,
      "model": "n",
      "conversation": [
        {**t, "content": t["content"].replace("A", "a")} for t in SAID
      ],
    },
  ]
}
JUDGED = {
  "question_id": 8,
  "category": "math",
  "turn": 1,
  "model_a": "m",
  "model_b": "n",
  "judge": "j",
  "winner": "model_b",
  "gpt4_winner": "tie",
}
HUMOUR = {
  "items": [
    {"item": 0, "text": "zero", "category": "c", "bws": 0.1},
    {"item": 7, "text": "seven", "category": "c", "bws": 0.2},
  ]
}
PANDALM = {
  "idx": 3,
  "motivation_app": "app",
  "cmp_key": "k",
  "instruction": "Do",
  "input": "this",
  "response1": "x",
  "response2": True,
  "annotator1": 1,
  "annotator2": 2,
  "annotator3": 0,
}
QA = {
  "id": "q",
  "question": "Why?",
  "passages": [],
  "gold": "g",
  **{f"prediction {i}": f"p{i}" for i in (1, 2, 3, 4)},
  "feedback": {},
  "preference": [1, 2, 0, 1, 1, 2],
}
WEBIS = {
  "arguments": [{"arg": "x", "text": "ex"}, {"arg": "y", "text": "why"}],
  "topics": [{"topic_id": 4, "query": "Topic?", "split": "train"}],
}
COMPARED = {
  "topic_id": 4,
  "arg_a": "x",
  "arg_b": "y",
  "rhetorical": "A",
  "logical": "B",
  "dialectical": "Tie",
}


def convert(name, row, tables=None):
  made = registry.get(name).apply([("f:1", row)], tables=tables)
  return [
    row if isinstance(row, ValueError) else parse_record(row, where=where)
    for where, row in made
  ]


class ShapesTest(parameterized.TestCase):
  def test_convarg(self):
    found = convert("convarg/votes", VOTES, CONVARG)
    self.assertEqual(
      [r.responses for r in found],
      [(" one", " two"), (" two", " one"), (" one", " two")],
    )
    self.assertEqual([r.annotator for r in found], ["w1", "w2", "w3"])
    self.assertEqual([r.group for r in found], ["same", None, None])
    self.assertEqual([r.target_prob for r in found], [1.0, 1.0, 0.5])
    self.assertRegex(found[0].prompt, 'Debate: D Give .* the side "S"')
    odd = {**VOTES, "votes": [{"worker": "w", "value": "both"}]}
    (error,) = convert("convarg/votes", odd, CONVARG)
    self.assertRegex(str(error), "one of a1, a2, equal, got 'both'")

  def test_mt_bench(self):
    (first,) = convert("mt_bench/votes", JUDGED, MT_BENCH)
    self.assertEqual(first.prompt, "\n\nHuman: Q1\n\nAssistant:")
    self.assertEqual(first.responses, (" a1", " A1"))
    self.assertEqual((first.annotator, first.group), ("j", "math"))
    (second,) = convert("mt_bench/votes", {**JUDGED, "turn": 2}, MT_BENCH)
    self.assertEqual(second.responses[1], " A1\n\nHuman: Q2\n\nAssistant: A2")
    (tie,) = convert("mt_bench/votes", {**JUDGED, "winner": "tie"}, MT_BENCH)
    self.assertEqual((tie.tie, tie.responses[0]), (True, " A1"))

  @parameterized.parameters(
    ("mt_bench/votes", JUDGED, {"question_id": 8.0, "turn": 1.0}, MT_BENCH),
    ("pandalm/votes", PANDALM, {"idx": 5.0}, None),
    ("qa_feedback/records", QA, {"id": 7.0}, None),
    ("webis_argquality/comparisons", COMPARED, {"topic_id": 4.0}, WEBIS),
  )
  def test_whole_numbers_as_floats_give_the_same_names(
    self, name, row, change, tables
  ):
    whole = {key: int(number) for key, number in change.items()}
    expected = convert(name, row | whole, tables)
    self.assertEqual(convert(name, row | change, tables), expected)
    self.assertNotIsInstance(expected[0], ValueError)

  @parameterized.parameters(
    ("3", "1", (" zero", " seven"), 0.75, None),
    ("0", "2", (" seven", " zero"), 1.0, None),
    ("2", "2", (" zero", " seven"), 0.5, True),
  )
  def test_humour(self, zero, seven, responses, share, tie):
    row = {"item_a": "0", "item_b": "7"}
    row |= {"votes_a_funnier": zero, "votes_b_funnier": seven}
    (record,) = convert("humour/votes", row, HUMOUR)
    self.assertEqual(record.responses, responses)
    self.assertEqual((record.target_prob, record.tie), (share, tie))

  def test_pandalm(self):
    found = convert("pandalm/votes", PANDALM)
    self.assertEqual(found[0].prompt, "\n\nHuman: Do\n\nthis\n\nAssistant:")
    self.assertEqual(
      [(r.annotator, r.responses, r.target_prob) for r in found],
      [
        ("annotator1", (" x", " True"), 1.0),
        ("annotator2", (" True", " x"), 1.0),
        ("annotator3", (" x", " True"), 0.5),
      ],
    )
    plain = convert("pandalm/votes", {**PANDALM, "input": ""})
    self.assertEqual(plain[0].prompt, "\n\nHuman: Do\n\nAssistant:")

  def test_qa_feedback(self):
    found = convert("qa_feedback/records", QA)
    self.assertEqual(
      [(r.id, r.responses, r.target_prob) for r in found][:3],
      [
        ("q-1v2", (" p1", " p2"), 1.0),
        ("q-1v3", (" p3", " p1"), 1.0),
        ("q-1v4", (" p1", " p4"), 0.5),
      ],
    )
    (error,) = convert("qa_feedback/records", {**QA, "preference": [1]})
    self.assertRegex(str(error), "preference must hold 6 values, got 1")

  def test_webis(self):
    found = convert("webis_argquality/comparisons", COMPARED, WEBIS)
    self.assertEqual(
      [(r.source, r.responses, r.target_prob) for r in found],
      [
        ("webis_rhetorical", (" ex", " why"), 1.0),
        ("webis_logical", (" why", " ex"), 1.0),
        ("webis_dialectical", (" ex", " why"), 0.5),
      ],
    )
    self.assertEqual(found[0].prompt, "\n\nHuman: Topic?\n\nAssistant:")


# file: records in train and test. Votes where the README counts votes.
ROWS = {
  "convarg/votes": (62078, None),
  "mt_bench/votes": (1021, 379),
  "humour/votes": (22665, 2490),
  "pandalm/votes": (3 * 759, 3 * 121),
  "qa_feedback/records": (6 * 355, 6 * 71),
  "webis_argquality/comparisons": (3 * 9625, 3 * 2282),
}


class RealFoldersTest(parameterized.TestCase):
  @parameterized.parameters(sorted(ROWS))
  def test_every_row_of_every_file(self, name):
    for part, expected in zip(("train", "test"), ROWS[name], strict=True):
      (path,) = real_data.folder("").glob(f"{name}_{part}.*")
      _, report = reader.read_records([str(path)])
      (source,) = report.sources
      self.assertEqual(source.skipped, 0)
      if expected is not None:
        self.assertEqual(source.read, expected)

  @parameterized.parameters("convarg", "mt_bench", "humour", "qa_feedback")
  def test_votes_are_about_the_texts_of_the_pairs(self, name):
    folder = real_data.folder(name)
    kind = {"qa_feedback": "records"}.get(name, "votes")
    (path,) = folder.glob(f"{kind}_test.*")
    pairs, votes = (
      reader.read_records([str(p)])[0]
      for p in (folder / "pairs_test.jsonl.gz", path)
    )
    key = lambda record: splits.key_of(record, "pair")
    self.assertContainsSubset({key(p) for p in pairs}, {key(v) for v in votes})

  def test_votes_add_up_to_the_counts_of_the_pairs(self):
    folder = real_data.folder("convarg")
    pairs, votes = (
      reader.read_records([str(folder / f"{kind}_test.jsonl.gz")])[0]
      for kind in ("pairs", "votes")
    )
    # By the names of the arguments: two of them have the same text.
    counted = collections.defaultdict(collections.Counter)
    for vote in votes:
      first, second, _ = vote.id.split("-", 2)
      text = None if vote.tie else vote.responses[0]
      counted[frozenset((first, second))][text] += 1
    for pair in pairs:
      counts = counted[frozenset(pair.id.split("-")[1:])]
      self.assertEqual(
        [counts[text] for text in (*pair.responses, None)],
        [pair.votes_chosen, pair.votes_rejected, pair.votes_tie],
      )


if __name__ == "__main__":
  absltest.main()
