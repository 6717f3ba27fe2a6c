"""Pairs of votes on single items: who prefers what, and which are drawn."""

import collections
import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import base, item_votes, registry
from jaxalign.data.records import reader, splits
from tests.data import real_data
from tests.data.adapters import local_ratings_test


def vote(person, item, sign, **columns):
  text = {"text": f"text {item}"}
  return {"person": person, "item": item, "vote": sign, **text, **columns}


VOTES = [
  vote("ann", 1, 1, group="g"),
  vote("ann", 2, "Agree", group="g"),
  vote("ann", 3, -1, group="g"),
  vote("ann", 4, 0, group="g"),
  vote("bob", 1, "disagree"),
  vote("bob", 3, "0.5"),
  vote("cem", 1, 1),
]
COMMENTS = [
  {"comment-id": 0, "comment-body": "Zero", "moderated": 1},
  {"comment-id": 1, "comment-body": "One\n", "moderated": 0},
  {"comment-id": 2, "comment-body": "Two", "moderated": -1},
]


def made(name, rows, tables=None, **draw):
  numbered = [(f"f/votes.csv:{i}", row) for i, row in enumerate(rows)]
  return [
    *registry.get(name).apply(numbered, frozenset(), tables, base.Draw(**draw))
  ]


def written(folder, name, header, *rows):
  path = pathlib.Path(folder, name)
  path.parent.mkdir(parents=True, exist_ok=True)
  lines = [",".join(map(str, row)) for row in (header, *rows)]
  path.write_text("\n".join(lines) + "\n")
  return path


class DicesTest(absltest.TestCase):
  def test_a_safe_conversation_is_preferred_to_an_unsafe_one(self):
    rater = local_ratings_test.RATER
    rows = [
      rater | dict(item_id=str(k), context=f"USER: {k}", Q_overall=answer)
      for k, answer in enumerate(("No", "Yes", "Unsure"))
    ]
    ((_, pair),) = made("dices_votes", rows)
    self.assertEqual(pair["chosen"], " USER: 0\nLAMDA: Fine.")
    self.assertEqual(pair["rejected"], " USER: 1\nLAMDA: Fine.")
    self.assertEqual((pair["annotator"], pair["group"]), ("296", "White"))
    ((_, error),) = made("dices_votes", [rater | {"Q_overall": "Maybe"}])
    self.assertRegex(str(error), "one of No, Unsure, Yes, got 'Maybe'")


class ItemVotesTest(parameterized.TestCase):
  def test_what_was_endorsed_is_preferred_to_what_was_rejected(self):
    rows = [row for _, row in made("item_votes", VOTES)]
    found = {(row["annotator"], row["chosen"], row["rejected"]) for row in rows}
    self.assertEqual(
      found,
      {
        ("ann", " text 1", " text 3"),
        ("ann", " text 2", " text 3"),
        ("bob", " text 3", " text 1"),
      },
    )
    self.assertEqual([row.get("group") for row in rows], ["g", "g", None])
    self.assertEqual(
      {row["id"] for row in rows}, {"ann-1-3", "ann-2-3", "bob-3-1"}
    )
    self.assertLen({row["prompt"] for row in rows}, 1)

  def test_texts_may_lie_beside(self):
    bare = [{k: v for k, v in r.items() if k != "text"} for r in VOTES]
    items = [{"item": str(i), "text": f"text {i}"} for i in range(1, 5)]
    found = made("item_votes_by_name", bare, {"items": items})
    self.assertEqual(found, made("item_votes", VOTES))
    asked = [row | {"prompt": "Q"} for row in items]
    found = made("item_votes_by_name", bare, {"items": asked})
    self.assertEqual({row["prompt"] for _, row in found}, {"Q"})
    (where, error), *_ = made("item_votes_by_name", bare, {"items": items[:2]})
    self.assertEqual(where, "f/votes.csv:2")
    self.assertRegex(str(error), "^item 3 is not in the file beside this one")

  def test_items_of_two_prompts_are_not_compared(self):
    rows = [vote("a", 1, 1, prompt="P"), vote("a", 2, -1, prompt="Q")]
    self.assertEmpty(made("item_votes", rows))
    rows.append(vote("a", 3, -1, prompt="P"))
    ((_, row),) = made("item_votes", rows)
    self.assertEqual((row["prompt"], row["rejected"]), ("P", " text 3"))

  def test_a_prompt_of_chat_turns_is_answered_by_a_turn(self):
    ask = lambda text: [{"role": "user", "content": text}]
    rows = [vote("a", 1, 1, prompt=ask("P")), vote("a", 2, -1, prompt=ask("Q"))]
    self.assertEmpty(made("item_votes", rows))
    rows.append(vote("a", 3, -1, prompt=ask("P")))
    ((_, row),) = made("item_votes", rows)
    self.assertEqual(row["prompt"], ask("P"))
    # A template begins the answer, so no space parts it from the prompt.
    self.assertEqual((row["chosen"], row["rejected"]), ("text 1", "text 3"))

  @parameterized.parameters("yes", True, "nan", "inf", "", ([1],))
  def test_a_vote_that_is_none_is_an_error_at_its_line(self, value):
    (where, error), *rest = made("item_votes", [vote("a", 9, value), *VOTES])
    self.assertEqual(where, "f/votes.csv:0")
    self.assertRegex(str(error), "^vote must be a number, above 0 for an item")
    self.assertLen(rest, 3)

  def test_two_votes_on_one_item_must_be_the_same(self):
    (where, error), *_ = made("item_votes", [*VOTES, vote("ann", 1, -1)])
    self.assertEqual(where, "f/votes.csv:7")
    self.assertRegex(
      str(error), r"^ann votes -1 on 1, and 1 at f/votes.csv:0: keep one vote"
    )
    again = made("item_votes", [*VOTES, vote("ann", 1, 1)])
    self.assertEqual(again, made("item_votes", VOTES))

  def test_neither_order_nor_other_people_decide_what_is_drawn(self):
    rows = [
      vote(f"p{p}", i, 1 if (i * 7 + p) % 3 else -1)
      for p in range(5)
      for i in range(40)
    ]
    ids = lambda found: [row["id"] for _, row in found]
    drawn = ids(made("item_votes", rows, per_person=6))
    self.assertLen(drawn, 30)
    self.assertLen({*drawn}, 30)
    self.assertEqual(drawn, ids(made("item_votes", rows[::-1], per_person=6)))
    alone = [row for row in rows if row["person"] == "p3"]
    self.assertEqual(drawn[18:24], ids(made("item_votes", alone, per_person=6)))
    # Another seed draws others; a larger number draws these and more.
    other = ids(made("item_votes", rows, per_person=6, seed=1))
    self.assertLess(len({*drawn} & {*other}), 10)
    more = ids(made("item_votes", rows, per_person=9))
    self.assertContainsSubset(drawn, more)

  def test_every_pair_is_as_likely_as_another(self):
    counts = collections.Counter()
    for seed in range(600):
      counts.update(item_votes.drawn(f"{seed}", 30, 5))
    self.assertLen(counts, 30)
    # 100 expected each, standard deviation 9.
    self.assertBetween(min(counts.values()), 60, 100)
    self.assertBetween(max(counts.values()), 100, 140)
    self.assertLen({*item_votes.drawn("a", 7, 7)}, 7)
    self.assertEqual(item_votes.drawn("a", 0, 7), [])

  def test_both_items_are_on_one_side_of_a_split(self):
    rows = [vote("p", i, 1 if i % 2 else -1) for i in range(60)]
    side = lambda text: int(text.endswith(("0", "5", "6")))
    found = made("item_votes", rows, per_person=8, side=side)
    sides = [{side(row["chosen"]), side(row["rejected"])} for _, row in found]
    self.assertEqual(sides.count({0}), 8)
    self.assertEqual(sides.count({1}), 8)

  def test_a_draw_of_none_is_refused(self):
    with self.assertRaisesRegex(ValueError, "pairs_per_person must be >= 1"):
      base.Draw(per_person=0)


class PolisTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.enter_context(tempfile.TemporaryDirectory())

  def test_an_export_is_read_by_its_folder(self):
    header = ("participant", "group-id", "n-votes", 0, 1, 2)
    written(
      self.folder,
      "town/participants-votes.csv",
      header,
      ("7", "1", 3, 1, -1, -1),
      ("8", "", 2, -1, 1, ""),
      ("9", "0", 2, 1, 0, -1),
    )
    written(
      self.folder,
      "town/comments.csv",
      ("timestamp", "comment-id", "author-id", "moderated", "comment-body"),
      *((5, c["comment-id"], 1, c["moderated"], c["comment-body"].strip())
        for c in COMMENTS),
    )  # fmt: skip
    for spec in ("town", "town/participants-votes.csv"):
      records, report = reader.read_records([f"{self.folder}/{spec}"])
      self.assertEqual(
        [(r.annotator, r.group, r.source, r.responses) for r in records],
        [
          ("town/7", "1", "town", (" Zero", " One")),
          ("town/8", None, "town", (" One", " Zero")),
        ],
      )
      self.assertEqual(report.counts["skipped"], 0)
    self.assertEndsWith(records[1].where, "participants-votes.csv:3")

  def test_an_export_with_another_column_is_an_error(self):
    (where, error), *_ = made(
      "participants-votes",
      [{"participant": 1, "0": 1, "1": -1, "mood": "good"}],
      {"comments": COMMENTS},
    )
    self.assertEqual(where, "f/votes.csv:0")
    self.assertRegex(str(error), "^unknown column 'mood'; an export of Polis")

  def test_the_folder_of_nine_conversations(self):
    written(
      self.folder,
      "polis/votes.csv",
      ("conversation", "participant", "statement", "vote", "group",
       "person_split"),
      ("c", 1, 4, 1, 0, "train"),
      ("c", 1, 5, -1, 0, "train"),
      ("d", 1, 4, -1, "", "test"),
      ("d", 1, 6, 1, "", "test"),
    )  # fmt: skip
    statements = [
      {"conversation": c, "id": i, "text": f"{c}{i}", "split": "train"}
      for c in "cd"
      for i in (4, 5, 6)
    ]
    path = pathlib.Path(self.folder, "polis")
    (path / "statements.jsonl").write_text(
      "".join(json.dumps(row) + "\n" for row in statements)
    )
    topics = {"c": {"topic": "Taxes"}, "d": {"topic": "Trees"}}
    (path / "conversations.json").write_text(json.dumps(topics))
    first, second = reader.read_records([str(path / "votes.csv")])[0]
    self.assertEqual(
      (first.source, first.annotator, first.group), ("c", "c/1", "0")
    )
    self.assertEqual(first.responses, (" c4", " c5"))
    self.assertIn("Taxes\n", first.prompt)
    self.assertEqual((second.annotator, second.group), ("d/1", None))

  def test_real_conversations(self):
    path = str(real_data.folder("polis") / "votes.csv.gz")
    draw = base.Draw(
      per_person=5, side=lambda text: splits.item_side(text, "item", 0.25)
    )
    stream = reader.RecordStream(
      [path], draw=draw, only_sources=("brexit-consensus",)
    )
    records = [*stream]
    # 172 people agree with something and disagree with something, one of them
    # not on one side.
    self.assertLen({r.annotator for r in records}, 171)
    sides = collections.Counter(
      (r.annotator, splits.side_of(r, "item", 0.25)) for r in records
    )
    self.assertEqual(max(sides.values()), 5)
    self.assertEqual({side for _, side in sides}, {False, True})
    self.assertEqual({r.group for r in records}, {"0", "1"})


if __name__ == "__main__":
  absltest.main()
