"""Chat templates that work too much, and one that does not."""

import threading
from unittest import mock

from absl.testing import absltest

from jaxalign.data.tokenization import template_bounds, tokenizer_files, turns

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
TURNS = [{"role": "user", "content": "Why?"}]


def rendered(template, messages=TURNS):
  fast = tokenizer_files.byte_tokenizer().fast
  fast.chat_template = template
  return template_bounds.rendered(
    fast, turns.Conversation(messages), generate=False
  )


class RenderedTest(absltest.TestCase):
  def test_as_transformers_renders_it(self):
    fast = tokenizer_files.byte_tokenizer().fast
    fast.chat_template = CHAT
    messages = TURNS * 100
    self.assertEqual(
      template_bounds.rendered(
        fast, turns.Conversation(messages), generate=True
      ),
      fast.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
      ),
    )

  def test_a_template_without_end_is_an_error(self):
    # The thread cannot be stopped, so what never ends here is a wait.
    let_go = threading.Event()
    self.addCleanup(let_go.set)
    with (
      mock.patch.object(template_bounds, "TRIAL_S", 0.05),
      mock.patch.object(template_bounds, "_render", lambda *_: let_go.wait(60)),
      self.assertRaisesRegex(ValueError, "has not ended after 0.05 s"),
    ):
      rendered(CHAT)

  def test_a_text_far_longer_than_its_turns_is_an_error(self):
    grown = "{% for i in range(2000) %}{{ 'a' * 1000 }}{% endfor %}"
    with self.assertRaisesRegex(ValueError, "made 2000000 characters of 1 t"):
      rendered(grown)
    long = [{"role": "user", "content": "a" * 400_000}]
    self.assertLen(rendered("{{ messages[0].content * 3 }}", long), 1_200_000)

  def test_more_turns_than_anybody_speaks_are_an_error(self):
    with self.assertRaisesRegex(ValueError, "10000 turns at most, got 10001"):
      rendered(CHAT, TURNS * 10_001)

  def test_a_template_may_refuse_the_trial_but_not_the_conversation(self):
    system_first = (
      "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}"
      "{% endif %}ok"
    )
    with self.assertRaisesRegex(Exception, "no"):
      rendered(system_first)
    system = [{"role": "system", "content": "Be kind."}]
    self.assertEqual(rendered(system_first, system), "ok")


if __name__ == "__main__":
  absltest.main()
