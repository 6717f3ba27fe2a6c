"""Functions as reward sources, and several sources as one."""

import sys
import types
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from jaxalign.data.records.chat import Turn
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.reward_sources import base
from jaxalign.runtime.reward_sources.base import (
  FunctionSource,
  JoinedSource,
  RewardError,
)

PROMPTS = ["a", (Turn("user", "b"),), "c"]
RESPONSES = ["x", "yy", "zzz"]


def lengths(prompts, responses):
  return [len(response) for response in responses]


def two(prompts, responses):
  return np.array([[len(r), -len(r)] for r in responses], np.float64)


class FunctionSourceTest(parameterized.TestCase):
  def test_rewards_per_output(self):
    source = FunctionSource(two, names=("long", "short"))
    rewards = source(PROMPTS, RESPONSES)
    self.assertEqual(rewards.dtype, np.float32)
    np.testing.assert_array_equal(rewards, [[1, -1], [2, -2], [3, -3]])
    self.assertIsNone(source.mixture_weights)

  def test_one_output_may_be_flat(self):
    rewards = FunctionSource(lengths)(PROMPTS, RESPONSES)
    np.testing.assert_array_equal(rewards, [[1], [2], [3]])

  def test_the_function_gets_lists_with_the_turns_as_they_are(self):
    seen = []

    def watch(prompts, responses):
      seen.append((prompts, responses))
      return [0.0] * 3

    FunctionSource(watch)(tuple(PROMPTS), tuple(RESPONSES))
    self.assertEqual(seen, [(PROMPTS, RESPONSES)])

  def test_no_text_asks_nobody(self):
    rewards = FunctionSource(lambda p, r: 1 / 0, names=("a", "b"))([], [])
    self.assertEqual(rewards.shape, (0, 2))

  @parameterized.parameters(
    ([1.0, 2.0], r"give \[3, 1\] rewards for 3 texts .* got shape \(2,\)"),
    ([[1.0, 2.0]] * 3, r"outputs reward, got shape \(3, 2\)"),
    ([1.0, float("nan"), 2.0], "gave nan as reward of text 1, and 1 such"),
    ([1.0, float("inf"), float("nan")], "gave inf as .* and 2 such"),
    (["good", "bad", "ugly"], "gave no array of numbers"),
    ([[1.0], [1.0, 2.0], []], "gave no array of numbers"),
    (None, "reward"),
  )
  def test_what_is_no_reward_stops_with_the_reason(self, given, message):
    source = FunctionSource(lambda p, r: given, origin="my.module:f")
    with self.assertRaisesRegex(RewardError, f"my.module:f .*{message}"):
      source(PROMPTS, RESPONSES)

  def test_prompts_and_responses_go_together(self):
    with self.assertRaisesRegex(ValueError, "equally many, got 3 and 2"):
      FunctionSource(lengths)(PROMPTS, RESPONSES[:2])

  def test_what_may_pass_is_tried_again_with_doubling_waits(self):
    attempts = []

    def flaky(prompts, responses):
      attempts.append(1)
      if len(attempts) < 4:
        raise ConnectionError("gone")
      return lengths(prompts, responses)

    source = FunctionSource(flaky, max_attempts=4, backoff_s=0.5)
    with (
      mock.patch.object(base.time, "sleep") as sleep,
      self.assertLogs("jaxalign.runtime.reward_sources.base", "WARNING"),
    ):
      np.testing.assert_array_equal(source(PROMPTS, RESPONSES), [[1], [2], [3]])
    self.assertEqual([c.args[0] for c in sleep.call_args_list], [0.5, 1, 2])

  def test_what_does_not_pass_stops_with_the_last_failure(self):
    def down(prompts, responses):
      raise TimeoutError("no answer")

    source = FunctionSource(down, max_attempts=2, backoff_s=0.001)
    with (
      self.assertRaisesRegex(RewardError, "2 times, last with TimeoutError"),
      self.assertLogs("jaxalign.runtime.reward_sources.base", "WARNING"),
    ):
      source(PROMPTS, RESPONSES)

  def test_a_mistake_is_not_tried_again(self):
    attempts = []

    def wrong(prompts, responses):
      attempts.append(1)
      return responses[7]

    with self.assertRaises(IndexError):
      FunctionSource(wrong, max_attempts=5)(PROMPTS, RESPONSES)
    self.assertLen(attempts, 1)


class FromMainTest(parameterized.TestCase):
  def several(self, main: bool, gathered):
    """As on one of two processes, where process 0 sends `gathered`."""
    self.enter_context(mock.patch.object(base.jax, "process_count", lambda: 2))
    self.enter_context(mock.patch.object(multihost, "is_main", lambda: main))
    return self.enter_context(
      mock.patch.object(multihost, "all_hosts_gather", return_value=gathered)
    )

  def test_others_do_not_ask_and_get_what_process_0_got(self):
    got = np.ones((2, 1), np.float32)
    self.several(False, [got, np.nan * got])
    found = base.from_main(lambda: 1 / 0, (2, 1))
    np.testing.assert_array_equal(found, got)

  def test_others_stop_where_process_0_failed(self):
    nothing = np.full((2, 1), np.nan, np.float32)
    self.several(False, [nothing, nothing])
    with self.assertRaisesRegex(RewardError, "process 0 got no rewards"):
      base.from_main(lambda: 1 / 0, (2, 1))

  def test_process_0_fails_only_after_the_others_know(self):
    gather = self.several(True, [np.full((2, 1), np.nan, np.float32)] * 2)

    def ask():
      raise RewardError("no answer")

    with self.assertRaisesRegex(RewardError, "no answer"):
      base.from_main(ask, (2, 1))
    gather.assert_called_once()


class ResolveTest(parameterized.TestCase):
  def test_finds_a_function(self):
    module = types.ModuleType("my_rewards")
    module.kind = types.SimpleNamespace(score=lengths)
    with mock.patch.dict(sys.modules, my_rewards=module):
      found = base.resolve_function("my_rewards:kind.score")
    self.assertIs(found, lengths)

  @parameterized.parameters(
    ("json.dumps", "is named `module:function`, got 'json.dumps'"),
    (":dumps", "is named"),
    ("no_such_module:f", "no reward function 'no_such_module:f'"),
    ("json:no_such", "no reward function 'json:no_such'"),
    ("json:__name__", "must be a function, got str"),
  )
  def test_errors(self, spec, message):
    with self.assertRaisesRegex(ValueError, message):
      base.resolve_function(spec)


class JoinedSourceTest(parameterized.TestCase):
  def test_outputs_in_order_under_new_names(self):
    first = FunctionSource(two, names=("long", "short"))
    joined = JoinedSource([first, FunctionSource(lengths)])
    self.assertEqual(joined.names, ("long", "short", "reward"))
    np.testing.assert_array_equal(
      joined(PROMPTS, RESPONSES), [[1, -1, 1], [2, -2, 2], [3, -3, 3]]
    )
    renamed = JoinedSource([FunctionSource(lengths)] * 2, names=("a", "b"))
    self.assertEqual(renamed.names, ("a", "b"))
    self.assertIsNone(renamed.mixture_weights)

  def test_a_single_source_keeps_its_shares(self):
    source = FunctionSource(two, names=("a", "b"), mixture_weights=(0.9, 0.1))
    self.assertEqual(JoinedSource([source]).mixture_weights, (0.9, 0.1))
    other = FunctionSource(lengths)
    self.assertIsNone(JoinedSource([source, other]).mixture_weights)

  def test_errors(self):
    twice = [FunctionSource(lengths)] * 2
    with self.assertRaisesRegex(ValueError, "different names, got reward, re"):
      JoinedSource(twice)
    with self.assertRaisesRegex(ValueError, "name the 2 outputs .* got 1: a"):
      JoinedSource(twice, names=("a",))
    with self.assertRaisesRegex(ValueError, "must have an output"):
      JoinedSource([])


if __name__ == "__main__":
  absltest.main()
