"""The data section: sources to pairs, and what is said when they do not fit."""

import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data import tokens
from jaxalign.experiments import preferences


def data(**changes) -> preferences.DataConfig:
  base = {
    "train_files": (),
    "eval_files": (),
    "tokenizer": "byte",
    "max_length": 32,
    "buckets": (16, 32),
    "on_bad_record": "error",
    "extra_columns": (),
    "crowd_seed": 0,
    "prefetch": 0,
  }
  return preferences.DataConfig(**base | changes)


class PreferencesTest(absltest.TestCase):
  def file(self, *rows) -> str:
    path = epath.Path(tempfile.mkdtemp()) / "mine.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)

  def test_a_ranking_becomes_all_its_pairs(self):
    path = self.file(
      {"prompt": "Q", "responses": ["a", "b", "c"]},
      {"prompt": "Q", "chosen": "d", "rejected": "e"},
    )
    config = data()
    tokenizer = preferences.open_tokenizer(config, None)
    pairs = preferences.load_pairs(config, (path,), tokenizer)
    self.assertEqual(
      [record.responses for record in pairs.records],
      [("a", "b"), ("a", "c"), ("b", "c"), ("d", "e")],
    )
    self.assertLen(pairs.dataset, 4)

  def test_a_bad_line_is_named_or_counted(self):
    path = self.file({"prompt": "Q", "chosen": "a", "rejected": "b"}, {"p": 1})
    tokenizer = tokens.byte_tokenizer()
    with self.assertRaisesRegex(ValueError, rf"^{path}:2:"):
      preferences.load_pairs(data(), (path,), tokenizer)
    skipping = data(on_bad_record="skip")
    pairs = preferences.load_pairs(skipping, (path,), tokenizer)
    self.assertLen(pairs.records, 1)
    self.assertEqual(pairs.report["skipped"], 1)

  def test_what_is_cut_is_reported(self):
    long = {"prompt": "Q" * 40, "chosen": "a", "rejected": "b"}
    pairs = preferences.load_pairs(
      data(), (self.file(long),), tokens.byte_tokenizer()
    )
    self.assertEqual(pairs.report["truncated_prompts"], 1)
    self.assertEqual(pairs.dataset.lengths.max(), 32)

  def test_responses_alone_keep_their_order(self):
    path = self.file({"prompt": "Q", "responses": ["a", "b", "c"]})
    config = data()
    records = preferences.load_records(config, (path,))
    tokenizer = tokens.byte_tokenizer()
    alone = preferences.each_response(config, records, tokenizer)
    self.assertEqual(
      [record.responses for record in alone.records],
      [("a", "a"), ("b", "b"), ("c", "c")],
    )

  def test_first_is_the_first(self):
    path = self.file(
      *({"prompt": "Q", "chosen": f"a{i}", "rejected": "b"} for i in range(5))
    )
    config, tokenizer = data(), tokens.byte_tokenizer()
    pairs = preferences.load_pairs(config, (path,), tokenizer)
    some = preferences.first(config, pairs, 3, tokenizer)
    np.testing.assert_array_equal(
      some.dataset.sequence(2, 0), pairs.dataset.sequence(2, 0)
    )
    self.assertLen(some.dataset, 3)
    self.assertLen(preferences.first(config, pairs, 9, tokenizer).dataset, 5)

  def test_a_model_from_scratch_needs_a_tokenizer(self):
    with self.assertRaisesRegex(ValueError, "data.tokenizer must be set"):
      preferences.open_tokenizer(data(tokenizer=None), None)

  def test_an_unset_variable_is_named(self):
    with self.assertRaisesRegex(ValueError, "JAXALIGN_NOWHERE"):
      preferences.open_tokenizer(data(tokenizer="$JAXALIGN_NOWHERE/t"), None)


if __name__ == "__main__":
  absltest.main()
