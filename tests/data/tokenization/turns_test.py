"""Tool calls, tools, developers, thoughts and template variables, as in TRL."""

import dataclasses
import inspect
import json

from absl.testing import absltest, parameterized

from jaxalign.data.batching import token_store
from jaxalign.data.records.record import parse_record
from jaxalign.data.tokenization import tokenizer_files, turns
from jaxalign.data.tokenization.turns import Turn

# In the manner of the templates of instruction models: every key is shown.
TEMPLATE = """
{%- if tools %}<tools>{% for t in tools %}{{ t | tojson }}{% endfor %}
</tools>{% endif %}
{%- for m in messages %}<{{ m.role }}{{ ' ' + m.name if m.name }}>
{%- if m.reasoning_content and think is not false %}
{{- '<think>' + m.reasoning_content + '</think>' }}{% endif %}
{%- if m.content is none %}<none>{% else %}{{ m.content }}{% endif %}
{%- for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}{% endfor %}
{%- if m.tool_call_id %}#{{ m.tool_call_id }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"""
CALL = {
  "type": "function",
  "id": "c1",
  "function": {"name": "weather", "arguments": {"town": "Ulm", "days": 2}},
}
TOOLS = [
  {
    "type": "function",
    "function": {
      "name": "weather",
      "description": "Of a town.",
      "parameters": {"type": "object", "properties": {"town": {}}},
    },
  }
]
ASKED = [
  {"role": "developer", "content": "Be brief."},
  {"role": "user", "content": "Rain?"},
]
THOUGHT = {
  "role": "assistant",
  "reasoning_content": "It is April.",
  "content": "Yes.",
}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = [
  CALLED,
  {
    "role": "tool",
    "name": "weather",
    "tool_call_id": "c1",
    "content": '{"rain": true}',
  },
  {"role": "assistant", "content": "Yes."},
]
ROW = {
  "prompt": ASKED,
  "chosen": [CALLED],
  "rejected": [{"role": "assistant", "content": "No."}],
  "tools": TOOLS,
}


def parse(**changes):
  return parse_record(ROW | changes, where="f:1")


class TurnsTest(parameterized.TestCase):
  def tokenizer(self):
    return tokenizer_files.byte_tokenizer().with_template(TEMPLATE)

  @parameterized.parameters(
    {},
    dict(tools=None),
    dict(tools=json.dumps(TOOLS)),
    dict(chosen=ANSWERED),
    dict(prompt=[*ASKED, *ANSWERED[:2]], chosen=ANSWERED[2:]),
    dict(chosen=[THOUGHT]),
    dict(chosen=[THOUGHT], chat_template_kwargs={"think": False}),
    dict(chosen=[THOUGHT], tools=None, chat_template_kwargs='{"think": false}'),
  )
  def test_the_template_is_given_what_trl_gives_it(self, **changes):
    row, tokenizer = ROW | changes, self.tokenizer()
    given = {
      "tools": TOOLS if row["tools"] else None,
      **({"think": False} if "chat_template_kwargs" in row else {}),
    }
    expected = lambda messages, generate: tokenizer.fast.apply_chat_template(
      messages, tokenize=False, add_generation_prompt=generate, **given
    )
    record = parse(**changes)
    self.assertEqual(
      tokenizer.prompt_text(record.prompt), expected(row["prompt"], True)
    )
    for response, name in zip(
      record.responses, ("chosen", "rejected"), strict=True
    ):
      text, _ = tokenizer.sequence_text(record.prompt, response)
      self.assertEqual(text, expected(row["prompt"] + row[name], False))

  def test_a_shared_prompt_keeps_its_tools(self):
    record = parse(
      prompt=None, chosen=ASKED + ANSWERED, rejected=ASKED + ROW["rejected"]
    )
    self.assertEqual(record.prompt, parse().prompt)
    self.assertLen(record.responses[0], 3)
    self.assertEqual(record.responses[1], "No.")

  @parameterized.parameters(
    {},
    dict(chosen=ANSWERED),
    dict(tools=None),
    dict(chosen=[THOUGHT], chat_template_kwargs={"think": False}),
    dict(tools=None, chat_template_kwargs={"think": False}),
  )
  def test_what_is_written_is_read(self, **changes):
    record = parse(**changes)
    row = json.loads(json.dumps(record.to_row()))
    self.assertEqual(parse_record(row, where="f:1"), record)

  def test_a_call_is_no_empty_response(self):
    record = parse()
    self.assertEqual(record.responses[0][0].content, "")
    self.assertIn("weather", record.responses[0][0].shown)
    made = token_store.encode([record], self.tokenizer(), max_length=999)
    self.assertGreater(made.lengths[0], made.lengths[1])

  def test_without_a_template_there_is_no_form_for_it(self):
    plain = tokenizer_files.byte_tokenizer()
    with self.assertRaisesRegex(ValueError, "no form for tools, tool_calls"):
      plain.prompt_text(parse().prompt)
    text = plain.prompt_text(parse(tools=None).prompt)
    self.assertIn("System: Be brief.", text)

  def test_nothing_else_is_a_plain_turn(self):
    turn = {"role": "user", "content": "a", "tool_calls": None, "name": None}
    self.assertEqual(turns.parse("t", turn, first=True), Turn("user", "a"))
    empty = {"role": "assistant", "content": "a", "tool_calls": []}
    self.assertEqual(
      turns.parse("t", empty, first=True), Turn("assistant", "a")
    )
    self.assertEqual(parse(tools=[]).prompt, parse(tools=None).prompt)

  @parameterized.parameters(
    (dict(tools="{"), "tools must be a list or its JSON"),
    (dict(tools={}), "tools must be a list of objects, got an object"),
    (dict(tools=["x"]), "tools must be a list of objects"),
    (
      dict(prompt="Rain?", chosen="a", rejected="b"),
      "tools go with a prompt of chat turns, got text",
    ),
    (
      dict(prompt=[{**ASKED[0], "tools": TOOLS}, ASKED[1]]),
      "tools are given twice",
    ),
    (
      dict(prompt=[ASKED[0], {**ASKED[1], "tools": TOOLS}]),
      r"prompt\[1\].tools go with the first turn of the prompt",
    ),
    (
      dict(chosen=[{**CALLED, "tools": TOOLS}]),
      "chosen has tools or chat_template_kwargs, which go with the prompt",
    ),
    (
      dict(prompt=[{**ASKED[0], "tool_calls": [CALL]}]),
      "tool_calls are an assistant's, got role 'developer'",
    ),
    (dict(chosen=[{**CALLED, "tool_calls": "x"}]), "must be a list of objects"),
    (
      dict(chosen=[{"role": "assistant", "tool_calls": []}]),
      r"chosen\[0\].content must be text, got nothing",
    ),
    (dict(chosen=[{**CALLED, "name": 3}]), r"chosen\[0\].name must be text"),
    (
      dict(chosen=[{**THOUGHT, "reasoning_content": 3}]),
      r"chosen\[0\].reasoning_content must be text",
    ),
    (
      dict(prompt=[{**ASKED[0], "reasoning_content": "x"}]),
      "reasoning_content is an assistant's, got role 'developer'",
    ),
    (
      dict(chat_template_kwargs=[1]),
      "chat_template_kwargs must be an object, got a list",
    ),
    (
      dict(chat_template_kwargs="{"),
      "chat_template_kwargs must be an object or its JSON",
    ),
    (
      dict(chat_template_kwargs={"tokenize": True, "think": 1}),
      "variables of the chat template, and these are not: tokenize",
    ),
  )
  def test_refusals(self, changes, message):
    with self.assertRaisesRegex(ValueError, f"^f:1: .*{message}"):
      parse(**changes)

  def test_no_argument_of_transformers_is_a_variable(self):
    render = self.tokenizer().fast.apply_chat_template
    arguments = set(inspect.signature(render).parameters) - {"kwargs"}
    self.assertLessEqual(arguments, set(turns.TAKEN))

  def test_a_turn_without_more_is_as_before(self):
    record = parse(tools=None, chosen=ROW["rejected"])
    self.assertEqual(record.responses[0], "No.")
    self.assertEqual(dataclasses.asdict(record)["prompt"], record.prompt)
    self.assertEqual(
      record.to_row()["prompt"], [turns.message(t) for t in record.prompt]
    )


if __name__ == "__main__":
  absltest.main()
