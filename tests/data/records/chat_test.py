"""The forms of prompt and response that TRL's trainers take, unchanged."""

from absl.testing import absltest, parameterized

from jaxalign.data.records.chat import Turn, text_of
from jaxalign.data.records.record import parse_record

USER = {"role": "user", "content": "What colour is the sky?"}
BLUE = {"role": "assistant", "content": "It is blue."}
GREEN = {"role": "assistant", "content": "It is green."}
MORE = {"role": "user", "content": "Why?"}


def texts(**row):
  record = parse_record(row, where="f:1")
  return record.prompt, record.responses


class FormsTest(parameterized.TestCase):
  def test_standard(self):
    self.assertEqual(
      texts(prompt="The sky is", chosen=" blue.", rejected=" green."),
      ("The sky is", (" blue.", " green.")),
    )

  def test_conversational(self):
    self.assertEqual(
      texts(prompt=[USER], chosen=[BLUE], rejected=[GREEN]),
      ((Turn(**USER),), ("It is blue.", "It is green.")),
    )

  def test_conversational_with_implicit_prompt(self):
    self.assertEqual(
      texts(chosen=[USER, BLUE], rejected=[USER, GREEN]),
      ((Turn(**USER),), ("It is blue.", "It is green.")),
    )

  def test_text_prompt_repeated_in_the_conversations(self):
    row = {"chosen": [USER, BLUE], "rejected": [USER, GREEN]}
    self.assertEqual(texts(prompt=USER["content"], **row), texts(**row))

  def test_several_turns_stay_turns(self):
    prompt, responses = texts(
      prompt=[USER], chosen=[BLUE, MORE, BLUE], rejected=[GREEN, MORE, GREEN]
    )
    self.assertEqual(prompt, (Turn(**USER),))
    self.assertEqual(responses[0], (Turn(**BLUE), Turn(**MORE), Turn(**BLUE)))
    self.assertEqual(
      text_of(responses[1]), "It is green.\n\nWhy?\n\nIt is green."
    )

  @parameterized.parameters(
    ("The sky is blue.", "The sky is green.", "The sky is"),
    # No word is cut, though both begin with "bl".
    ("The sky is blue.", "The sky is black.", "The sky is"),
    ("Q: hm\nA: yes", "Q: hm\nA: no", "Q: hm\nA:"),
    ("Q\n\nyes", "Q\n\nno", "Q\n\n"),
    ("yes", "no", ""),
    ("Hello", "Hello there", "Hello"),
    ("same", "same", "same"),
  )
  def test_implicit_text_prompt(self, chosen, rejected, prompt):
    got, responses = texts(chosen=chosen, rejected=rejected)
    self.assertEqual(got, prompt)
    self.assertEqual([got + r for r in responses], [chosen, rejected])

  @parameterized.parameters(
    ({"chosen": "a", "rejected": [BLUE]}, "must all be text or all be chat"),
    (
      {"prompt": "other", "chosen": [USER, BLUE], "rejected": [USER, GREEN]},
      "prompt is text, so chosen and rejected must be text or",
    ),
    (
      {"prompt": [USER], "chosen": [BLUE, MORE], "rejected": [GREEN]},
      "chosen must end with an assistant turn, got role 'user'",
    ),
    (
      {"prompt": ["hi"], "chosen": "a", "rejected": "b"},
      r"prompt\[0\] must be an object with role and content, got text",
    ),
    (
      {"prompt": [{"role": "bot", "content": ""}], "chosen": "a"},
      r"prompt\[0\].role must be one of system, developer, user, ass",
    ),
    (
      {"prompt": [{"role": "user"}], "chosen": "a"},
      r"prompt\[0\].content must be text, got nothing",
    ),
    (
      {"prompt": [{**USER, "weight": 1}], "chosen": "a"},
      r"prompt\[0\] has unknown key 'weight'",
    ),
  )
  def test_refusals(self, row, message):
    with self.assertRaisesRegex(ValueError, "^f:1: .*" + message):
      texts(**{"rejected": "b", **row})

  def test_null_keys_of_a_turn_are_absent(self):
    turn = {**USER, "tool_calls": None}
    self.assertEqual(
      texts(prompt=[turn], chosen="a", rejected="b")[0], (Turn(**USER),)
    )


if __name__ == "__main__":
  absltest.main()
