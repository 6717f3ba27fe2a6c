"""Parting records by a unit, and finding what leaked."""

import dataclasses

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.records import splits
from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import Record
from jaxalign.data.synthetic import crowd


def records():
  config = dataclasses.replace(crowd.preset("two_groups"), votes_per_pair=5)
  return crowd.draw_records(config, split="train")


def votes():
  """Pairs of 40 people over 60 statements, each by a person of their own."""
  rng = np.random.default_rng(0)
  return [
    Record(
      prompt="Q",
      responses=tuple(f" s{i}" for i in rng.choice(60, 2, replace=False)),
      annotator=f"p{number % 40}",
      id=str(number),
      source="v",
    )
    for number in range(800)
  ]


class ItemSplitTest(parameterized.TestCase):
  @parameterized.parameters(*splits.ITEMS)
  def test_no_item_and_no_such_person_is_on_both_sides(self, by):
    everyone = votes()
    train, held_out = splits.split_records(everyone, by, 0.3)
    items = lambda part: {text for r in part for text in r.responses}
    people = lambda part: {r.annotator for r in part}
    self.assertEmpty(items(train) & items(held_out))
    if by == "annotator_and_item":
      self.assertEmpty(people(train) & people(held_out))
    else:
      self.assertNotEmpty(people(train) & people(held_out))
    splits.check_leaks(train, held_out, by)
    self.assertLess(len(train) + len(held_out), len(everyone))
    # One item more on the wrong side is a leak, whatever it is compared with.
    leak = Record("Q", (held_out[0].responses[1], " new"), annotator="new")
    with self.assertRaisesRegex(ValueError, "^1 held-out records share their"):
      splits.check_leaks([*train, leak], held_out[:1], by)

  @parameterized.parameters(*splits.ITEMS)
  def test_neither_order_nor_company_decides(self, by):
    everyone = votes()
    train, held_out = splits.split_records(everyone, by, 0.3)
    for part, side in ((train, False), (held_out, True)):
      self.assertEqual([splits.side_of(r, by, 0.3) for r in part],
                       [side] * len(part))  # fmt: skip
    again = splits.split_records(everyone[::-1], by, 0.3)
    self.assertEqual([part[::-1] for part in again], [train, held_out])

  def test_a_pair_of_both_sides_is_on_none(self):
    sides = {splits.item_side(f"s{i}", "item", 0.3): f"s{i}" for i in range(60)}
    self.assertEqual({*sides}, {0, 1})
    record = lambda *texts: Record("Q", texts, annotator="p")
    side = lambda *texts: splits.side_of(record(*texts), "item", 0.3)
    self.assertIsNone(side(sides[0], sides[1]))
    # A space in front, as adapters put it, makes no other item.
    self.assertTrue(side(sides[1], f" {sides[1]}"))
    self.assertFalse(side(sides[0], f" {sides[0]}"))
    self.assertEqual(splits.item_side(sides[1], "annotator", 0.3), 0)
    self.assertEqual(splits.item_side(sides[1], None, None), 0)

  def test_the_same_people_are_new_with_and_without_new_items(self):
    everyone = votes()
    alone = splits.split_records(everyone, "annotator", 0.3)[1]
    both = splits.split_records(everyone, "annotator_and_item", 0.3)[1]
    self.assertContainsSubset([r.id for r in both], [r.id for r in alone])


class SplitTest(parameterized.TestCase):
  @parameterized.parameters(*splits.WHOLE)
  def test_no_unit_is_on_both_sides(self, by):
    everyone = records()
    train, held_out = splits.split_records(everyone, by, 0.3)
    self.assertLen(everyone, len(train) + len(held_out))
    keys = lambda part: {splits.key_of(r, by) for r in part}
    self.assertEmpty(keys(train) & keys(held_out))
    splits.check_leaks(train, held_out, by)
    units = len(keys(train)) + len(keys(held_out))
    self.assertAlmostEqual(len(keys(held_out)) / units, 0.3, delta=0.1)

  @parameterized.parameters(*splits.WHOLE)
  def test_neither_order_nor_company_decides(self, by):
    everyone = records()
    _, held_out = splits.split_records(everyone, by, 0.3)
    _, reversed_part = splits.split_records(everyone[::-1], by, 0.3)
    self.assertEqual(reversed_part[::-1], held_out)
    alone = [r for r in everyone[:50] if splits.is_held_out(r, by, 0.3)]
    self.assertEqual(alone, [r for r in held_out if r in everyone[:50]])

  def test_a_larger_share_holds_the_smaller_one(self):
    everyone = records()
    small, large = (
      splits.split_records(everyone, "pair", f)[1] for f in (0.1, 0.4)
    )
    self.assertContainsSubset(
      {record.id for record in small}, {record.id for record in large}
    )

  def test_votes_on_one_pair_stay_together_whoever_won(self):
    first = Record(prompt="Q", responses=("a", "b"), annotator="1")
    second = Record(prompt="Q", responses=("b", "a"), annotator="2")
    other = Record(prompt="Q", responses=("a", "c"), annotator="1")
    key = lambda record: splits.key_of(record, "pair")
    self.assertEqual(key(first), key(second))
    self.assertNotEqual(key(first), key(other))

  def test_a_prompt_of_turns_is_its_text(self):
    text = Record(prompt="Q", responses=("a", "b"))
    turns = Record(prompt=(Turn("user", "Q"),), responses=("a", "b"))
    self.assertEqual(
      splits.key_of(text, "prompt"), splits.key_of(turns, "prompt")
    )

  def test_a_leak_is_counted_and_named(self):
    train, held_out = splits.split_records(records(), "prompt", 0.3)
    leaked = [*held_out, *train[5:8]]
    with self.assertRaisesRegex(
      ValueError,
      rf"^3 held-out records share their prompt with training, the first is "
      rf"{train[5].id} of source {train[5].source}",
    ):
      splits.check_leaks(train, leaked, "prompt")

  def test_refusals(self):
    record = Record(prompt="Q", responses=("a", "b"), id="r", source="s")
    with self.assertRaisesRegex(
      ValueError, "^record id r: split by annotator .* this one of source s"
    ):
      splits.key_of(record, "annotator")
    with self.assertRaisesRegex(ValueError, "by must be one of"):
      splits.key_of(record, "group")
    with self.assertRaisesRegex(ValueError, r"fraction must be in \(0, 1\)"):
      splits.is_held_out(record, "pair", 1.0)
    with self.assertRaisesRegex(ValueError, "leaves no (training|held-out)"):
      splits.split_records([record], "pair", 0.5)


if __name__ == "__main__":
  absltest.main()
