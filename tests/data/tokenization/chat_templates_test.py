"""Templates in Jinja against the same text made in Python."""

import tokenizers
import transformers
from absl.testing import absltest, parameterized

from jaxalign.data.records.chat import Turn
from jaxalign.data.tokenization import chat_templates

TURNS = [
  Turn("system", "Be fair {{ 1 }}"),
  Turn("user", " Why?\n"),
  Turn("assistant", "So."),
]


def letters(pre_tokenizer) -> transformers.PreTrainedTokenizerFast:
  """A tokenizer of single characters with two markers."""
  names = ("<s>", "</s>", *"▁\nHuman: ")
  vocab = {name: i for i, name in enumerate(dict.fromkeys(names))}
  backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, []))
  backend.pre_tokenizer = pre_tokenizer
  backend.add_special_tokens(["<s>", "</s>"])
  return transformers.PreTrainedTokenizerFast(tokenizer_object=backend)


def rendered(template, turns=TURNS, **options) -> str:
  tokenizer = letters(tokenizers.pre_tokenizers.Whitespace())
  return tokenizer.apply_chat_template(
    [turn._asdict() for turn in turns],
    chat_template=template,
    tokenize=False,
    **options,
  )


class ChatTemplatesTest(parameterized.TestCase):
  @parameterized.parameters(("", ""), ("<s>", "</s>"), ("'\n\"\ufdd0", "\\"))
  def test_a_dialogue_is_the_same_in_jinja(self, first, last):
    template = chat_templates.dialogue_template(first, last)
    text = first + chat_templates.dialogue(TURNS)
    self.assertEqual(rendered(template), text + last)
    self.assertEqual(
      rendered(template, add_generation_prompt=True), text + "\n\nAssistant:"
    )

  def test_other_roles_speak_under_their_own_name(self):
    template = chat_templates.dialogue_template("", "")
    self.assertEqual(rendered(template, [Turn("critic", "x")]), "\n\nCritic: x")
    # Which is what newer models call the system's.
    self.assertEqual(
      rendered(template, [Turn("developer", "x")]), "\n\nSystem: x"
    )

  @parameterized.parameters(
    ("\nx\n", "<s>\nx</s>"),
    ("<s>x", "<s>x</s>"),
    ("x</s>\n ", "<s>x</s>"),
    ("x\n\n", "<s>x\n</s>"),
    ("{% if true %}\nx{% endif %}", "<s>x</s>"),
  )
  def test_markers_are_written_once(self, template, expected):
    backend = letters(tokenizers.pre_tokenizers.Whitespace())
    marked = chat_templates.marked_template(
      template, "<s>", "</s>", backend.backend_tokenizer
    )
    self.assertEqual(rendered(marked), expected)

  def test_without_markers_a_template_is_what_it_was(self):
    backend = letters(tokenizers.pre_tokenizers.Whitespace())
    marked = chat_templates.marked_template(
      "\nx </s>\n", None, None, backend.backend_tokenizer
    )
    self.assertEqual(rendered(marked), rendered("\nx </s>\n"))

  def test_the_space_that_only_the_first_word_gets(self):
    first = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first")
    always = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    space = lambda pre_tokenizer, marker: chat_templates.space_behind(
      marker, letters(pre_tokenizer).backend_tokenizer
    )
    self.assertEqual(space(first, "<s>"), " ")
    self.assertEqual(space(first, ""), "")
    self.assertEqual(space(always, "<s>"), "")


if __name__ == "__main__":
  absltest.main()
