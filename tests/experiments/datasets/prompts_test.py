"""Files of prompts alone: who reads them, and who says where they stand."""

import json
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from etils import epath

from jaxalign.data.batching import sharded_tokens
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import sample, win_rates
from jaxalign.experiments.datasets import preferences, sft
from jaxalign.experiments.datasets import prompts as prompt_data
from jaxalign.experiments.policy import candidates
from jaxalign.runtime.distributed import multihost

TURNS = [{"role": "user", "content": "Why?"}]
ROWS = ({"prompt": "Q"}, {"prompt": TURNS, "group": "warm", "id": 7})
READING = dict(on_bad_record="error", extra_columns=(), crowd_seed=0)


def prompts_config(**changes):
  return prompt_data.PromptConfig(
    **dict(
      train_files=(),
      eval_files=(),
      tokenizer="byte",
      max_prompt_length=32,
      prefetch=0,
      **READING,
    )
    | changes
  )


def pairs_of(files):
  config = preferences.DataConfig(
    train_files=files,
    eval_files=(),
    split_by=None,
    eval_fraction=None,
    tokenizer="byte",
    chat_template=None,
    max_length=32,
    buckets=(32,),
    streaming=False,
    mixing="proportional",
    pairs_per_source=None,
    prefetch=0,
    **READING,
  )
  return preferences.load_pairs(config, files, tokenizer_files.byte_tokenizer())


def texts_of(files):
  config = sft.TextConfig(
    train_files=files,
    eval_files=(),
    tokenizer="byte",
    length=32,
    layout="best_fit",
    prefetch=0,
    **READING,
  )
  return sft.load_texts(config, files, tokenizer_files.byte_tokenizer())


def candidates_of(files, num_responses):
  config = candidates.PromptsConfig(files=files, limit=None, **READING)
  return candidates.load_prompts(config, num_responses=num_responses)


class PromptDataTest(parameterized.TestCase):
  def write(self, *rows) -> tuple[str]:
    path = epath.Path(tempfile.mkdtemp()) / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return (str(path),)

  def load(self, files, config=None):
    return prompt_data.load_prompts(
      config or prompts_config(),
      files,
      tokenizer_files.byte_tokenizer(),
      group_names=("warm",),
    )

  def test_prompts_alone_are_those_of_records(self):
    whole = [row | {"responses": ["a", "b"]} for row in ROWS]
    alone, beside = self.load(self.write(*ROWS)), self.load(self.write(*whole))
    self.assertEqual(alone.texts, beside.texts)
    np.testing.assert_array_equal(
      alone.sequences.values, beside.sequences.values
    )
    np.testing.assert_array_equal(alone.widths, beside.widths)
    np.testing.assert_array_equal(alone.group, [-1, 0])
    self.assertEqual(alone.source_names, ("prompts",))

  def test_what_was_answered_before_takes_no_prompt_away(self):
    collapsed = [
      {"prompt": "P", "responses": ["a", "a"]},
      {"prompt": "R", "responses": ["a", ""]},
    ]
    files = self.write(*collapsed)
    self.assertEqual(list(self.load(files).texts), ["P", "R"])
    for number in (0, 2):
      self.assertLen(candidates_of(files, number), 2)

  def test_columns_for_a_reward_function_stay_beside_their_prompts(self):
    rows = [
      {"prompt": "2 + 2 =", "answer": 4, "group": "warm", "level": "easy"},
      {"prompt": "3 + 3 =", "answer": [6, "six"], "level": "easy"},
      {"prompt": "4 + 4 ="},
    ]
    files = self.write(*rows)
    wanted = dict(reward_columns=("answer", "group"), extra_columns=("level",))
    dataset = self.load(files, prompts_config(**wanted))
    self.assertEqual(
      dataset.columns,
      {"answer": [4, [6, "six"], None], "group": ["warm", None, None]},
    )
    config = candidates.PromptsConfig(files=files, **wanted)
    records = candidates.load_prompts(config, num_responses=0)
    self.assertEqual([r.column("answer") for r in records][:2], [4, [6, "six"]])
    for missing in (
      dict(reward_columns=("answr",), extra_columns=("level", "answer")),
      dict(extra_columns=()),
    ):
      with self.assertRaisesRegex(
        ValueError, "names 'answr', a column that no rec|unknown column 'level'"
      ):
        self.load(files, prompts_config(**wanted | missing))

  def test_columns_are_kept_of_records_alone(self):
    path = epath.Path(tempfile.mkdtemp()) / "votes.jsonl"
    path.write_text("{}")
    with self.assertRaisesRegex(
      ValueError, "the columns answer can be kept of rows that are records"
    ):
      self.load(
        (f"openai/webgpt_comparisons:{path}",),
        prompts_config(reward_columns=("answer",)),
      )

  def test_hosts_share_the_work(self):
    processes = sharded_tokens.Processes(0, 1, np.asarray)
    with (
      mock.patch.object(multihost, "sharing", return_value=processes),
      mock.patch.object(
        sharded_tokens, "encode_some", wraps=sharded_tokens.encode_some
      ) as run,
    ):
      self.load(self.write(*ROWS))
    self.assertIs(run.call_args.args[3], processes)

  def test_a_column_too_many_is_named_or_left_out(self):
    files = self.write(*ROWS, {"prompt": "2+2", "solution": "4"})
    with self.assertRaisesRegex(
      ValueError, f"^{files[0]}:3: unknown column 'solution'"
    ):
      self.load(files)
    config = prompts_config(extra_columns=("solution",))
    self.assertLen(self.load(files, config), 3)

  def test_what_a_template_refuses_is_a_bad_line(self):
    files = self.write(*ROWS, {"prompt": "R"})
    tokenizer = tokenizer_files.byte_tokenizer()
    tokenizer.fast.chat_template = "{{ raise_exception('no chats') }}"

    def sample_prompts(on_bad_record):
      config = mock.Mock(
        files=files, limit=None, **READING | {"on_bad_record": on_bad_record}
      )
      return sample._prompts(config, tokenizer)

    def prompts(on_bad_record):
      config = prompts_config(on_bad_record=on_bad_record)
      return prompt_data.load_prompts(
        config, files, tokenizer, group_names=()
      ).texts

    for read in (sample_prompts, prompts):
      with self.assertRaisesRegex(ValueError, f"^{files[0]}:2: no chats$"):
        read("error")
      self.assertEqual(read("skip"), ["Q", "R"])

  def test_answers_are_drawn_where_a_policy_is(self):
    records = candidates_of(self.write(*ROWS), 0)
    self.assertEqual([record.id for record in records], [None, "7"])

  @parameterized.named_parameters(
    ("pairs", pairs_of),
    ("demonstrations", texts_of),
    ("candidates", lambda files: candidates_of(files, 2)),
    ("answers", lambda files: win_rates.load_answers(files, 0)),
  )
  def test_who_needs_responses_says_where_there_are_none(self, read):
    files = self.write({"prompt": "Q", "chosen": "a", "rejected": "b"}, *ROWS)
    with self.assertRaisesRegex(
      ValueError, f"^{files[0]}:2: missing field 'chosen'"
    ):
      read(files)


if __name__ == "__main__":
  absltest.main()
