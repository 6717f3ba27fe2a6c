"""Reward functions of both forms, and the columns that they ask for."""

import inspect

from absl.testing import absltest, parameterized

from jaxalign.data.records.chat import Turn
from jaxalign.runtime.reward_sources import function_calls
from jaxalign.runtime.reward_sources.base import FunctionSource

CHAT = (Turn("user", "How many?"),)
PROMPTS = ["2 + 2 =", CHAT]
RESPONSES = ["4", "5"]
COLUMNS = {"answer": ["4", "4"], "group": ["a", "b"]}


class FunctionCallsTest(parameterized.TestCase):
  def called(self, function, columns=COLUMNS):
    call = function_calls.caller(function, "my:f")
    return call(PROMPTS, RESPONSES, columns)

  def test_by_position_with_the_columns_that_parameters_name(self):
    def plain(asked, said):
      return asked, said

    def one(asked, said, answer, unit=3):
      return asked, said, answer, unit

    def every(asked, said, *, group="none", **others):
      return asked, said, group, others

    self.assertEqual(self.called(plain), (PROMPTS, RESPONSES))
    self.assertEqual(self.called(one), (PROMPTS, RESPONSES, ["4", "4"], 3))
    self.assertEqual(
      self.called(every),
      (PROMPTS, RESPONSES, ["a", "b"], {"answer": ["4", "4"]}),
    )
    self.assertEqual(self.called(every, {})[2:], ("none", {}))

  def test_a_function_for_trl_is_called_as_there(self):
    # The signature of trl.rewards.accuracy_reward, with chats as lists.
    def accuracy(completions, answer, **kwargs):
      return completions, answer, kwargs

    chats = [[{"role": "assistant", "content": "5"}]]
    prompts = ["2 + 2 =", [{"role": "user", "content": "How many?"}]]
    self.assertEqual(
      self.called(accuracy),
      (["4", *chats], ["4", "4"], {"prompts": prompts, "group": ["a", "b"]}),
    )

    def narrow(completions):
      return completions

    self.assertEqual(self.called(narrow), ["4", *chats])

  def test_a_column_that_is_not_there_is_named(self):
    with self.assertRaisesRegex(
      ValueError, "my:f asks for answer, .*; their columns: group"
    ):
      self.called(lambda p, r, answer: r, {"group": ["a", "b"]})
    with self.assertRaisesRegex(ValueError, "for solution, .*columns: none"):
      self.called(lambda completions, solution: 0, {})

  def test_what_does_not_say_how_it_is_called_gets_two_lists(self):
    with self.assertRaises(ValueError):
      inspect.signature(max)
    self.assertEqual(self.called(max), RESPONSES)

  def test_a_verifiable_reward_as_a_source(self):
    source = FunctionSource(
      lambda prompts, responses, answer: [
        float(said == right)
        for said, right in zip(responses, answer, strict=True)
      ]
    )
    rewards = source(PROMPTS, RESPONSES, COLUMNS)
    self.assertEqual(rewards.tolist(), [[1.0], [0.0]])
    with self.assertRaisesRegex(ValueError, "column answer .* got 1"):
      source(PROMPTS, RESPONSES, {"answer": ["4"]})


if __name__ == "__main__":
  absltest.main()
