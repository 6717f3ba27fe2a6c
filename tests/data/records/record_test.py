"""parse_record: every accepted form, every refusal, and the way back."""

import json
import math

import hypothesis
from absl.testing import absltest, parameterized
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import (
  Record,
  expand_rankings,
  pairs_of,
  parse_record,
)

PAIR = {"prompt": "Q", "chosen": " a", "rejected": " b"}
RANKING = {"prompt": "Q", "responses": ["a", "b", "c"]}


def parse(**columns):
  return parse_record({**PAIR, **columns}, where="f.jsonl:7")


class ParseTest(parameterized.TestCase):
  def test_null_means_absent(self):
    self.assertEqual(parse(margin=None, votes_tie=None, group=None), parse())

  def test_responses_are_an_alternative_to_chosen_and_rejected(self):
    row = {"prompt": "Q", "responses": [" a", " b"]}
    self.assertEqual(parse_record(row, where="f:1"), parse())

  def test_whole_numbers_name_people(self):
    record = parse(annotator=17, group=0, id=3, source="s")
    self.assertEqual(
      (record.annotator, record.group, record.id), ("17", "0", "3")
    )

  def test_ratings_and_labels_are_per_response_or_of_the_first(self):
    record = parse(
      ratings={"clear": [1, 2.5], "kind": 3, "none": None},
      labels=[[0.5, 0.5], [1, 0]],
    )
    self.assertEqual(record.ratings, {"clear": (1.0, 2.5), "kind": (3.0,)})
    self.assertEqual(record.labels, ((0.5, 0.5), (1.0, 0.0)))
    self.assertEqual(parse(labels=[0.25, 0.75]).labels, ((0.25, 0.75),))

  @parameterized.parameters(
    ({}, 1.0),
    ({"tie": False}, 1.0),
    ({"tie": True}, 0.5),
    ({"chosen_prob": 0.3}, 0.3),
    ({"chosen_prob": 0}, 0.0),
    ({"votes_chosen": 3, "votes_rejected": 1}, 0.75),
    ({"votes_chosen": 3, "votes_rejected": 1, "votes_tie": 4}, 0.625),
    ({"votes_chosen": 0, "votes_rejected": 2}, 0.0),
    # What n_votes leaves over went to the other response.
    ({"votes_chosen": 3, "n_votes": 4}, 0.75),
    ({"votes_chosen": 2, "votes_tie": 1, "n_votes": 4}, 0.625),
    # A distribution that someone computed beats the raw votes.
    ({"votes_chosen": 3, "votes_rejected": 1, "chosen_prob": 0.9}, 0.9),
    # People who answered neither are in n_votes and in no count.
    ({"votes_chosen": 2, "votes_rejected": 1, "n_votes": 5}, 2 / 3),
    ({"tie": True, "votes_chosen": 2, "votes_rejected": 2}, 0.5),
  )
  def test_target_prob(self, columns, expected):
    self.assertEqual(parse(**columns).target_prob, expected)

  @parameterized.parameters(
    (
      {"colour": 1},
      "unknown column 'colour'; allowed: annotator, chat_temp",
    ),
    ({"colour": None}, "unknown column 'colour'"),
    ({"chosen": None}, "missing field 'chosen'"),
    ({"rejected": None}, "missing field 'rejected'"),
    ({"responses": ["a", "b"]}, "give responses or chosen, not both"),
    ({"prompt": 3}, "prompt must be text or chat turns, got int 3"),
    ({"chosen": True}, "chosen must be text or chat turns, got a boolean"),
    ({"chosen": "\ud800"}, "chosen holds a lone surrogate"),
    ({"chosen_prob": 1.2}, r"chosen_prob must be in \[0, 1\], got 1.2"),
    ({"chosen_prob": -0.1}, "chosen_prob must be in"),
    ({"chosen_prob": "0.5"}, "chosen_prob must be a number, got text"),
    ({"chosen_prob": True}, "chosen_prob must be a number, got a boolean"),
    ({"chosen_prob": math.nan}, "chosen_prob must be finite, got nan"),
    ({"margin": math.inf}, "margin must be finite, got inf"),
    ({"strength": 10**400}, "strength must be finite, got 1000"),
    ({"strength_std": -1}, "strength_std must be >= 0, got -1"),
    ({"judge_prob": 2}, r"judge_prob must be in \[0, 1\], got 2"),
    ({"position": 2}, "position must be 0 or 1, got 2"),
    ({"tie": 1}, "tie must be true or false, got int 1"),
    ({"tie": True, "chosen_prob": 0.7}, "tie is true but chosen_prob is 0.7"),
    (
      {"tie": True, "votes_chosen": 2, "votes_rejected": 1},
      "tie is true but votes are 2 to 1",
    ),
    ({"votes_chosen": 1.5}, "votes_chosen must be a whole number"),
    ({"votes_chosen": -1}, r"votes_chosen must be in \[0, 2\*\*31\)"),
    ({"votes_chosen": 2}, "votes_chosen needs votes_rejected or n_votes"),
    ({"votes_rejected": 2}, "votes_rejected is given without votes_chosen"),
    ({"votes_tie": 2, "n_votes": 3}, "votes_tie is given without votes_chosen"),
    (
      {"votes_chosen": 2, "votes_rejected": 2, "n_votes": 3},
      "votes sum to 4, more than n_votes = 3",
    ),
    ({"votes_chosen": 0, "votes_rejected": 0}, "are all 0"),
    ({"votes_chosen": 0, "n_votes": 0}, "are all 0"),
    ({"source": ""}, "source must not be empty"),
    ({"annotator": 1.5}, "annotator must be text or a whole number"),
    ({"group": ["a"]}, "group must be text or a whole number, got a list"),
    ({"ratings": 3}, "ratings must map an attribute to numbers, got int 3"),
    ({"ratings": {"x": [1, 2, 3]}}, "1 number or one per response"),
    ({"ratings": {"x": "4"}}, r"ratings\['x'\] must be a number, got text"),
    ({"labels": [0.5, 0.6]}, "labels must sum to 1, got 1.1"),
    ({"labels": []}, "labels must be a list of numbers"),
    ({"labels": [[1.0], [0.5, 0.5]]}, "over the same classes"),
    ({"labels": [[1.0]] * 3}, "one per response .2., got 3"),
  )
  def test_refusal_begins_with_the_place(self, columns, message):
    with self.assertRaisesRegex(ValueError, r"^f.jsonl:7: .*" + message):
      parse(**columns)

  def test_a_single_response_is_a_demonstration_or_rated(self):
    row = {"prompt": "Q", "responses": ["a"]}
    self.assertEqual(parse_record(row, where="f:1").responses, ("a",))
    row |= {"label_votes": [3, 0, 1], "ratings": {"clear": 2}}
    record = parse_record(row, where="f:1")
    self.assertEqual(record.label_votes, ((3, 0, 1),))
    self.assertEqual(record.labels, ((0.75, 0.0, 0.25),))
    self.assertEqual(record.ratings, {"clear": (2.0,)})
    with self.assertRaisesRegex(ValueError, "^f:1: missing field 'prompt'"):
      parse_record({**row, "prompt": None}, where="f:1")
    with self.assertRaisesRegex(ValueError, "tie belongs to a pair, got 1 res"):
      parse_record({**row, "tie": True}, where="f:1")

  def test_a_prompt_alone_where_it_is_to_be_answered(self):
    read = lambda **row: parse_record(row, where="f:1", need_responses=False)
    turns = [{"role": "user", "content": "Q"}]
    names = dict(source="s", annotator="a", group="g", id="i")
    record = read(prompt="Q", chosen=None, **names)
    self.assertEqual(record, Record("Q", (), **names))
    self.assertEqual(record.to_row(), {"prompt": "Q", **names})
    self.assertEqual(read(**record.to_row()), record)
    self.assertEqual(read(prompt=turns), Record((Turn("user", "Q"),), ()))
    # Records with responses are what they are elsewhere.
    self.assertEqual(read(**PAIR), parse())
    for row in ({"prompt": "Q"}, {"prompt": turns, "responses": None}, {}):
      with self.assertRaisesRegex(
        ValueError, "^f:1: missing field 'chosen': .* where no policy answers"
      ):
        parse_record(row, where="f:1")

  @parameterized.parameters(
    ({"prompt": None}, "missing field 'prompt'"),
    ({"prompt": " "}, "prompt must not be empty where there is no response"),
    ({"prompt": []}, "prompt must not be empty where there is no response"),
    ({"prompt": 3}, "prompt must be text or chat turns, got int 3"),
    ({"chosen": "a"}, "missing field 'rejected'"),
    ({"responses": []}, "responses must hold 1 or more, got 0"),
    ({"answer": "4"}, "unknown column 'answer'"),
    ({"tie": True}, "tie belongs to responses, there are none"),
    ({"n_votes": 3}, "n_votes belongs to responses"),
    ({"num_ranked": 1}, "num_ranked belongs to responses"),
    ({"ratings": {"x": 3}}, "ratings belongs to responses"),
    ({"label_votes": [1, 2]}, "label_votes belongs to responses"),
    ({"strength_std": 0.5}, "strength_std belongs to responses"),
  )
  def test_what_a_prompt_alone_cannot_have(self, columns, message):
    with self.assertRaisesRegex(ValueError, "^f:1: .*" + message):
      parse_record({"prompt": "Q"} | columns, where="f:1", need_responses=False)

  def test_a_distribution_that_someone_computed_beats_the_votes(self):
    record = parse(
      label_votes=[[1, 1], [2, 0]], labels=[[0.6, 0.4], [0.9, 0.1]]
    )
    self.assertEqual(record.labels, ((0.6, 0.4), (0.9, 0.1)))
    self.assertEqual(record.label_votes, ((1, 1), (2, 0)))
    record = parse(label_votes=[[1, 1], [2, 0]], label_prior=[[1, 0], [0, 1]])
    self.assertEqual(record.label_prior, ((1.0, 0.0), (0.0, 1.0)))
    self.assertEqual(record.labels, ((0.5, 0.5), (1.0, 0.0)))

  @parameterized.parameters(
    ({"label_votes": []}, "label_votes must be a list of counts, got a list"),
    ({"label_votes": 3}, "label_votes must be a list of counts, got int 3"),
    ({"label_votes": [0, 0]}, "label_votes of a response are all 0"),
    ({"label_votes": [0.5, 1]}, "label_votes must be a whole number"),
    ({"label_votes": [[1], [1, 2]]}, "label_votes must be counts of the same"),
    ({"label_votes": [[1, 1]] * 3}, "one per response .2., got 3"),
    ({"label_prior": [0.5, 0.6]}, "label_prior must sum to 1, got 1.1"),
    (
      {"label_prior": [0.5, 0.5], "label_votes": [1, 2, 3]},
      "label_votes and label_prior must have the same form, got 1 x 3 and 1 x",
    ),
    (
      {"label_votes": [1, 1], "labels": [0.2, 0.3, 0.5]},
      "the same form, got 1 x 3 and 1 x 2",
    ),
    (
      {"label_votes": [1, 1], "labels": [[0.5, 0.5], [1, 0]]},
      "the same form, got 2 x 2 and 1 x 2",
    ),
    ({"num_ranked": 0}, r"num_ranked must be in \[1, 2\], got 0"),
    ({"num_ranked": 3}, r"num_ranked must be in \[1, 2\], got 3"),
    ({"num_ranked": True}, "num_ranked must be a number, got a boolean"),
  )
  def test_refusals_of_votes_and_ranks(self, columns, message):
    with self.assertRaisesRegex(ValueError, r"^f.jsonl:7: .*" + message):
      parse(**columns)

  @parameterized.parameters(
    ({"responses": []}, "responses must hold 1 or more, got 0"),
    ({"responses": "ab"}, "responses must be a list, got text"),
    ({"tie": True}, "tie belongs to a pair, got 3 responses"),
    ({"chosen_prob": 0.5}, "chosen_prob belongs to a pair"),
    ({"votes_chosen": 1, "votes_rejected": 1}, "votes_chosen belongs to"),
  )
  def test_ranking_refusals(self, columns, message):
    with self.assertRaisesRegex(ValueError, "^f:1: " + message):
      parse_record({**RANKING, **columns}, where="f:1")


class RankingTest(absltest.TestCase):
  def test_a_choice_says_nothing_about_the_losers(self):
    row = {**RANKING, "num_ranked": 1, "label_votes": [1, 3]}
    pairs = pairs_of(parse_record(row, where="f:1"))
    self.assertEqual([p.responses for p in pairs], [("a", "b"), ("a", "c")])
    self.assertEqual({p.num_ranked for p in pairs}, {None})
    self.assertEqual({p.label_votes for p in pairs}, {((1, 3),)})
    two = pairs_of(parse_record({**row, "num_ranked": 2}, where="f:1"))
    self.assertEqual(
      [p.responses for p in two], [("a", "b"), ("a", "c"), ("b", "c")]
    )
    # Only the first response has votes.
    self.assertEqual([p.label_votes for p in two], [((1, 3),)] * 2 + [None])

  def test_becomes_all_pairs_and_equal_ratings_tie(self):
    record = parse_record(
      {
        **RANKING,
        "ratings": {"overall": [3, 1, 1], "first": 5},
        "labels": [[1, 0], [0, 1], [0.5, 0.5]],
        "id": "r",
        "group": "g",
      },
      where="f:1",
    )
    pairs = expand_rankings([record, parse()])
    self.assertEqual(
      [pair.responses for pair in pairs],
      [("a", "b"), ("a", "c"), ("b", "c"), (" a", " b")],
    )
    self.assertEqual([pair.target_prob for pair in pairs], [1.0, 1.0, 0.5, 1.0])
    self.assertEqual(pairs[1].ratings["overall"], (3.0, 1.0))
    self.assertEqual(pairs[1].labels, ((1.0, 0.0), (0.5, 0.5)))
    self.assertEqual(pairs[2].id, "r-1-2")
    self.assertEqual(pairs[2].group, "g")

  def test_what_rates_the_first_response_stays_with_it(self):
    row = {**RANKING, "ratings": {"x": 5}, "labels": [0, 1]}
    pairs = expand_rankings([parse_record(row, where="f:1")])
    self.assertEqual(
      [pair.ratings for pair in pairs], [{"x": (5.0,)}, {"x": (5.0,)}, None]
    )
    self.assertEqual(
      [pair.labels for pair in pairs], [((0.0, 1.0),)] * 2 + [None]
    )


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
roles = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
# Few words, so that responses often agree or one begins with the other.
words = st.sampled_from(["", "a", "a b", "\u2028"]) | texts
turns = st.lists(
  st.fixed_dictionaries(
    {"role": roles, "content": words}, optional={"name": words}
  ),
  max_size=3,
)
calls = st.just([{"function": {"name": "f", "arguments": {"b": 1, "a": None}}}])
answer = words.map(
  lambda text: {"role": "assistant", "content": text}
) | calls.map(lambda each: {"role": "assistant", "tool_calls": each})
# What an assistant says last, perhaps with turns before it, or nothing.
said = st.just([]) | st.tuples(turns, answer).map(lambda t: [*t[0], t[1]])
names = st.none() | st.text("abc", min_size=1) | st.integers() | st.just(7.0)
numbers = st.none() | st.floats(-1e9, 1e9) | st.integers(-9, 9)
counts = st.integers(0, 2**30) | st.just(3.0)
votes = st.one_of(
  st.just({}),
  st.fixed_dictionaries(
    {"votes_chosen": counts.filter(bool), "votes_rejected": counts},
    optional={"votes_tie": counts, "n_votes": st.just(2**31 - 1)},
  ).filter(lambda v: sum(v.values()) < 2**32),
  st.fixed_dictionaries(
    {"votes_chosen": counts, "n_votes": st.just(2**31 - 1)}
  ),
  st.fixed_dictionaries({"chosen_prob": st.floats(0, 1)}),
  st.fixed_dictionaries({"tie": st.booleans()}),
)
shares = st.sampled_from([[0.25, 0.75], [1, 0], [0.3333, 0.6667]])
class_votes = st.sampled_from([[1, 2], [0.0, 5], [2**30, 1]])


@st.composite
def forms(draw, num):
  """Prompt and `num` responses in any form that a reader accepts."""
  given = draw(st.sampled_from(["text", "turns", "implied", "repeated"]))
  if given == "text":
    prompt = draw(words | turns | (st.none() if num > 1 else st.nothing()))
    found = [draw(words) for _ in range(num)]
  else:
    found = [draw(said) for _ in range(num)]
    prompt = draw(turns)
    if given != "turns":
      start = [*prompt, {"role": "user", "content": "Q"}]
      found = [[*start, *turns] for turns in found]
      # Of one response nothing could be shared.
      prompt = {"implied": None, "repeated": "Q"}[given]
      hypothesis.assume(num > 1 and all(t[-1]["role"] != "user" for t in found))
  if num == 2 and draw(st.booleans()):
    return {"prompt": prompt, "chosen": found[0], "rejected": found[1]}
  return {"prompt": prompt, "responses": found}


@st.composite
def rows(draw):
  """A row of `num` responses with any columns that they may have."""
  num = draw(st.integers(0, 4))
  row = {name: draw(names) for name in ("source", "annotator", "group", "id")}
  if not num:
    return row | {"prompt": draw(texts.map(lambda text: f"Q{text}"))}
  row |= draw(forms(num))
  if num == 2:
    row |= draw(votes)
    row |= {"margin": draw(numbers), "strength": draw(numbers)}
    row["judge_prob"] = draw(st.none() | st.floats(0, 1))
    row["position"] = draw(st.sampled_from([None, 0, 1.0]))
  row["strength_std"] = draw(st.none() | st.floats(0, 9))
  row["num_ranked"] = draw(st.none() | st.integers(1, num))
  rating = st.floats(-9, 9)
  each = lambda one: st.lists(one, min_size=num, max_size=num)
  row["ratings"] = draw(
    st.none() | st.dictionaries(texts, st.none() | rating | each(rating))
  )
  whole = draw(st.booleans())
  for name, one in (
    ("labels", shares),
    ("label_prior", shares),
    ("label_votes", class_votes),
  ):
    row[name] = draw(st.none() | (each(one) if whole else one))
  return row


class RoundTripTest(absltest.TestCase):
  def test_an_answer_beside_a_longer_conversation(self):
    asked, said = ({"role": r, "content": r} for r in ("user", "assistant"))
    row = {"prompt": [asked], "chosen": [said], "rejected": [said, asked, said]}
    record = parse_record(row, where="f:1")
    self.assertEqual(record.responses[0], "assistant")
    self.assertEqual(
      record.to_row()["responses"], [row["chosen"], row["rejected"]]
    )
    self.assertEqual(parse_record(record.to_row(), where="f:1"), record)

  @settings(max_examples=200, deadline=None)
  @given(rows())
  def test_what_a_stage_writes_the_next_one_reads(self, row):
    record = parse_record(row, where="f:1", need_responses=False)
    for one in (record, *pairs_of(record)):
      written = json.loads(json.dumps(one.to_row()))
      read = parse_record(written, where="f:1", need_responses=False)
      self.assertEqual(read, one)


if __name__ == "__main__":
  absltest.main()
