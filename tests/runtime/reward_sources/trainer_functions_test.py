"""Sources as the reward functions of other trainers."""

import numpy as np
from absl.testing import absltest

from jaxalign.data.records.chat import Turn
from jaxalign.runtime.reward_sources import FunctionSource, reward_functions

PROMPTS = ["a", [{"role": "user", "content": "b"}]]
COMPLETIONS = ["xx", [{"role": "assistant", "content": "yyy"}]]


class Noted:
  """A function of two outputs that notes what it gets."""

  def __init__(self):
    self.calls = []

  def __call__(self, prompts, responses, **columns):
    self.calls.append((prompts, responses, columns))
    return [[len(response), -1.0] for response in responses]


class RewardFunctionTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.noted = Noted()
    self.functions = reward_functions(
      FunctionSource(self.noted, names=("long", "short"))
    )

  def test_one_function_per_output_by_its_name(self):
    self.assertEqual([f.__name__ for f in self.functions], ["long", "short"])
    long, short = (
      f(prompts=PROMPTS, completions=COMPLETIONS) for f in self.functions
    )
    self.assertEqual((long, short), ([2.0, 3.0], [-1.0, -1.0]))
    self.assertIsInstance(long[0], float)
    ((prompts, responses, _),) = self.noted.calls
    self.assertEqual(prompts, ["a", (Turn("user", "b"),)])
    self.assertEqual(responses, ["xx", "yyy"])

  def test_columns_are_what_is_as_long_as_the_texts(self):
    self.functions[0](
      PROMPTS,
      COMPLETIONS,
      answer=np.array([4, 5]),
      trainer_state=object(),
      scale=3.0,
      names=["one"],
    )
    self.assertEqual(self.noted.calls[0][2], {"answer": [4, 5]})

  def test_other_texts_or_columns_are_asked_anew(self):
    long = self.functions[0]
    long(PROMPTS, COMPLETIONS, answer=[1, 2])
    long(PROMPTS, COMPLETIONS, answer=[1, 2])
    self.assertLen(self.noted.calls, 1)
    long(PROMPTS, COMPLETIONS, answer=[1, 3])
    self.assertEqual(long(PROMPTS, ["z", "zz"], answer=[1, 3]), [1.0, 2.0])
    self.assertLen(self.noted.calls, 3)
    arrays = [np.arange(2), np.arange(2)]
    for _ in range(2):  # which cannot be compared
      long(PROMPTS, ["z", "zz"], answer=[*map(np.copy, arrays)])
    self.assertLen(self.noted.calls, 5)

  def test_an_error_leaves_nothing_behind(self):
    with self.assertRaisesRegex(ValueError, "text 1: response must be text"):
      self.functions[0](PROMPTS, ["a", None])
    with self.assertRaises(ValueError):
      self.functions[0](PROMPTS, ["a"])
    self.assertEqual(self.noted.calls, [])


if __name__ == "__main__":
  absltest.main()
