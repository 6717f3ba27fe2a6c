"""Rows of one prompt find each other, and broken ones are named."""

from absl.testing import absltest

from jaxalign.data.adapters import registry
from jaxalign.data.records.record import parse_record


def convert(name, rows):
  found = [(f"f:{i}", row) for i, row in enumerate(rows, start=1)]
  return [
    (where, row)
    if isinstance(row, ValueError)
    else (where, parse_record(row, where=where))
    for where, row in registry.get(name).apply(found)
  ]


class HelpSteerTest(absltest.TestCase):
  def row(self, prompt, response, helpfulness):
    return {
      "prompt": prompt,
      "response": response,
      "helpfulness": helpfulness,
      "correctness": 3,
      "coherence": 4,
      "complexity": 1,
      "verbosity": 2,
    }

  def test_neighbours_of_one_prompt_are_a_pair(self):
    found = convert(
      "nvidia/HelpSteer2",
      [
        self.row("Q", "worse", 1),
        self.row("Q", "better", 4),
        self.row("lonely", "x", 1),
        self.row("R", "a", 2),
        self.row("R", "b", 2),
        {**self.row("S", "a", 2), "extra": 1},
      ],
    )
    self.assertEqual([where for where, _ in found], ["f:1", "f:4", "f:6"])
    first, second, third = (record for _, record in found)
    self.assertEqual(first.responses, ("better", "worse"))
    self.assertEqual(first.ratings["helpfulness"], (4.0, 1.0))
    self.assertEqual((first.strength, first.target_prob), (3.0, 1.0))
    self.assertEqual(second.target_prob, 0.5)
    self.assertRegex(str(third), "unknown column 'extra'")


class OasstTest(absltest.TestCase):
  def row(self, name, parent, role, text, rank=None):
    return {
      "message_id": name,
      "parent_id": parent,
      "role": role,
      "text": text,
      "rank": rank,
      "lang": "en",
      "emojis": None,
    }

  def test_ranked_replies_carry_their_conversation(self):
    found = convert(
      "OpenAssistant/oasst1",
      [
        self.row("1", None, "prompter", "Q"),
        self.row("2", "1", "assistant", "good", 0.0),
        self.row("3", "1", "assistant", "bad", 2),
        self.row("4", "1", "assistant", "fair", 1),
        self.row("5", "2", "prompter", "More"),
        self.row("6", "5", "assistant", "b", 1),
        self.row("7", "5", "assistant", "a", 0),
        self.row("8", "1", "assistant", "unranked"),
        self.row("9", "gone", "assistant", "x", 0),
        self.row("10", "gone", "assistant", "y", 1),
        self.row("11", "1", "assistant", "z", "first"),
      ],
    )
    self.assertEqual(
      [where for where, _ in found], ["f:11", "f:2", "f:7", "f:9"]
    )
    self.assertRegex(str(found[0][1]), "rank must be a number, got text")
    self.assertEqual(found[1][1].responses, ("good", "fair", "bad"))
    deep = found[2][1]
    self.assertEqual(deep.responses, ("a", "b"))
    self.assertEqual(
      [turn[:2] for turn in deep.prompt],
      [("user", "Q"), ("assistant", "good"), ("user", "More")],
    )
    self.assertEqual(deep.group, "en")
    self.assertRegex(str(found[3][1]), "message gone is not in the file")

  def test_a_message_among_its_own_ancestors_ends(self):
    found = convert(
      "OpenAssistant/oasst1",
      [
        self.row("1", "1", "prompter", "Q"),
        self.row("2", "1", "assistant", "a", 0),
        self.row("3", "1", "assistant", "b", 1),
      ],
    )
    self.assertRegex(str(found[0][1]), "its own ancestor")


class PrismTest(absltest.TestCase):
  def test_turns_written_as_floats_are_in_their_order(self):
    turns = (1, 0)
    whole = [self.row(t, f"{t}{s}", s, s > 0) for t in turns for s in (1, 0)]
    floats = [row | {"turn": float(row["turn"])} for row in whole]
    found = convert("HannahRoseKirk/prism-alignment", floats)
    self.assertEqual(found, convert("HannahRoseKirk/prism-alignment", whole))
    self.assertEqual([len(record.prompt) for _, record in found], [1, 3])

  def row(self, turn, response, score, kept, interaction="i0"):
    return {
      "utterance_id": "u",
      "interaction_id": interaction,
      "conversation_id": "c0",
      "user_id": "user7",
      "turn": turn,
      "within_turn_id": 0,
      "conversation_type": "unguided",
      "user_prompt": f"Q{turn}",
      "model_response": response,
      "model_name": "m",
      "model_provider": "p",
      "score": score,
      "if_chosen": kept,
      "included_in_balanced_subset": True,
    }

  def test_turns_are_ranked_and_the_kept_reply_goes_on(self):
    found = convert(
      "HannahRoseKirk/prism-alignment",
      [
        # Out of order: the second turn comes first in the file.
        self.row(1, "c", 50, False, "i1"),
        self.row(1, "d", 50, True, "i1"),
        self.row(0, "a", 20, False),
        self.row(0, "b", 80, True),
        self.row(2, "alone", 80, True),
      ],
    )
    (_, first), (where, second) = found
    self.assertEqual(first.responses, ("b", "a"))
    self.assertEqual(first.ratings, {"overall": (80.0, 20.0)})
    self.assertEqual(where, "f:1")
    self.assertEqual(
      [turn[:2] for turn in second.prompt],
      [("user", "Q0"), ("assistant", "b"), ("user", "Q1")],
    )
    self.assertEqual(second.responses, ("d", "c"))
    self.assertEqual(second.target_prob, 0.5)
    self.assertEqual(
      (second.annotator, second.group, second.id), ("user7", "unguided", "i1")
    )


if __name__ == "__main__":
  absltest.main()
