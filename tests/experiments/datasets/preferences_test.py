"""The data section: sources to pairs, and what is said when they do not fit."""

import collections
import dataclasses
import json
import tempfile

import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.records import splits
from jaxalign.data.records.chat import Turn
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.datasets import preferences


def data(**changes) -> preferences.DataConfig:
  base = {
    "train_files": (),
    "eval_files": (),
    "split_by": None,
    "eval_fraction": None,
    "tokenizer": "byte",
    "chat_template": None,
    "max_length": 32,
    "buckets": (16, 32),
    "on_bad_record": "error",
    "extra_columns": (),
    "crowd_seed": 0,
    "streaming": False,
    "mixing": "proportional",
    "pairs_per_source": None,
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
    tokenizer = tokenizer_files.byte_tokenizer()
    with self.assertRaisesRegex(ValueError, rf"^{path}:2:"):
      preferences.load_pairs(data(), (path,), tokenizer)
    skipping = data(on_bad_record="skip")
    pairs = preferences.load_pairs(skipping, (path,), tokenizer)
    self.assertLen(pairs.records, 1)
    self.assertEqual(pairs.report["skipped"], 1)

  def test_what_a_tokenizer_refuses_is_a_bad_line(self):
    chat = [{"role": "system", "content": "Q"}]
    rows = [
      {"prompt": "Q", "chosen": "a", "rejected": "b"},
      {"prompt": chat, "chosen": "a", "rejected": "b"},
      {"prompt": "Q", "responses": ["a"]},
    ]
    tokenizer = tokenizer_files.byte_tokenizer()
    tokenizer.fast.chat_template = "{{ raise_exception('no system') }}"
    path = self.file(*rows[:2])
    with self.assertRaisesRegex(ValueError, rf"^{path}:2: no system$"):
      preferences.load_pairs(data(), (path,), tokenizer)
    path = self.file(*rows[::2])
    with self.assertRaisesRegex(ValueError, rf"^{path}:2: 1 responses"):
      preferences.load_pairs(data(), (path,), tokenizer)
    path = self.file(*rows)
    for streaming in (False, True):
      skipping = data(on_bad_record="skip", streaming=streaming)
      pairs = preferences.load_pairs(skipping, (path,), tokenizer)
      self.assertLen(list(pairs.records), len(pairs.dataset))
      self.assertLen(pairs.dataset, 1)
      self.assertEqual(pairs.report["skipped"], 2)
    found = preferences.load_records(skipping, (path,), tokenizer)
    self.assertLen(found, 2)  # a single response is scored as it is

  def test_what_is_cut_is_reported(self):
    long = {"prompt": "Q" * 40, "chosen": "a", "rejected": "b"}
    pairs = preferences.load_pairs(
      data(), (self.file(long),), tokenizer_files.byte_tokenizer()
    )
    self.assertEqual(pairs.report["truncated_prompts"], 1)
    self.assertEqual(pairs.dataset.lengths.max(), 32)

  def crowd(self, **changes):
    config = data(train_files=("synthetic:two_groups",), **changes)
    config = dataclasses.replace(config, max_length=128, buckets=(128,))
    return preferences.load_splits(config, tokenizer_files.byte_tokenizer())

  def test_held_out_records_are_cut_from_the_training_files(self):
    whole, none = self.crowd()
    self.assertIsNone(none)
    for by in splits.WHOLE:
      train, held_out = self.crowd(split_by=by, eval_fraction=0.25)
      self.assertLen(whole.dataset, len(train.dataset) + len(held_out.dataset))
      splits.check_leaks(train.records, held_out.records, by)
      self.assertBetween(len(held_out.dataset) / len(whole.dataset), 0.1, 0.4)

  def test_votes_on_items_are_split_by_person_and_by_item(self):
    rows = [
      {"person": f"p{p}", "item": str(i), "text": f"s{i}",
       "vote": (1, -1)[(p + i) % 2]}
      for p in range(30)
      for i in range(40)
    ]  # fmt: skip
    path = f"item_votes:{self.file(*rows)}"
    loaded = {}
    for by in ("annotator", *splits.ITEMS):
      config = data(
        train_files=(path,),
        split_by=by,
        eval_fraction=0.3,
        pairs_per_person=4,
      )
      train, held_out = preferences.load_splits(
        config, tokenizer_files.byte_tokenizer()
      )
      splits.check_leaks(train.records, held_out.records, by)
      for part in (train, held_out):
        each = collections.Counter(r.annotator for r in part.records)
        self.assertEqual(max(each.values()), 4)
      loaded[by] = len(train.dataset), len(held_out.dataset)
    # By item every person has pairs on both sides.
    self.assertEqual(sum(loaded["annotator"]), 30 * 4)
    self.assertEqual(loaded["item"], (30 * 4, 30 * 4))
    self.assertLess(loaded["annotator_and_item"][1], 30 * 4)

  def test_only_some_sources_are_kept(self):
    rows = [
      {"prompt": f"Q{i}", "chosen": "a", "rejected": "b", "source": f"s{i % 3}"}
      for i in range(9)
    ]
    config = data(only_sources=("s0", "s2"))
    kept = preferences.load_pairs(
      config, (self.file(*rows),), tokenizer_files.byte_tokenizer()
    )
    self.assertEqual(kept.dataset.source_names, ("s0", "s2"))
    self.assertLen(kept.dataset, 6)
    self.assertEqual(kept.report["dropped_other_source"], 3)
    with self.assertRaisesRegex(ValueError, "no rows left: .* 9 other_source"):
      preferences.load_records(data(only_sources=("t",)), (self.file(*rows),))
    with self.assertRaisesRegex(ValueError, "pairs_per_person must be >= 1"):
      data(pairs_per_person=0)

  def test_a_leak_between_the_files_is_an_error(self):
    files = {"eval_files": ("synthetic:two_groups",)}
    self.crowd(**files)
    with self.assertRaisesRegex(ValueError, "share their pair with training"):
      self.crowd(**files, split_by="pair")
    self.crowd(eval_files=("synthetic:two_groups:test",), split_by="annotator")

  def test_a_split_that_empties_a_source_or_group_is_an_error(self):
    rows = [
      {"prompt": f"Q{i}", "chosen": "a", "rejected": "b", "source": f"s{i}"}
      for i in range(40)
    ]
    config = data(
      train_files=(self.file(*rows),), split_by="pair", eval_fraction=0.5
    )
    with self.assertRaisesRegex(ValueError, "no training pair of source 's"):
      preferences.load_splits(config, tokenizer_files.byte_tokenizer())
    for row in rows:
      row["group"] = row.pop("source")
    config = dataclasses.replace(config, train_files=(self.file(*rows),))
    with self.assertRaisesRegex(ValueError, "no training pair of group 's"):
      preferences.load_splits(config, tokenizer_files.byte_tokenizer())

  def test_streaming_changes_where_tokens_lie_and_nothing_else(self):
    memory, _ = self.crowd()
    disk, _ = self.crowd(streaming=True)
    self.assertIsInstance(disk.dataset.sequences.values.base, np.memmap)
    self.assertNotIsInstance(disk.records, list)
    self.assertEqual(list(disk.records), memory.records)
    for pair in (0, 7, len(memory.dataset) - 1):
      np.testing.assert_array_equal(
        disk.dataset.sequence(pair, 1), memory.dataset.sequence(pair, 1)
      )
    self.assertEqual(disk.report, memory.report)

  def test_sources_are_mixed_as_the_config_says(self):
    config = data(
      train_files=("synthetic:two_groups",),
      mixing="stratified",
      pairs_per_source=10,
    )
    config = dataclasses.replace(config, max_length=128, buckets=(128,))
    tokenizer = tokenizer_files.byte_tokenizer()
    pairs = preferences.load_pairs(config, config.train_files, tokenizer)
    source = preferences.make_batches(
      config, pairs, tokenizer, 4, seed=0, shuffle=True
    )
    self.assertLen(source, 5)
    for batch in source:
      np.testing.assert_array_equal(batch["source"], [0, 1, 0, 1])

  def test_a_chat_template_of_ones_own(self):
    path = epath.Path(tempfile.mkdtemp()) / "chat.jinja"
    path.write_text("{% for m in messages %}<{{ m.content }}>{% endfor %}")
    tokenizer = preferences.open_tokenizer(data(chat_template=str(path)), None)
    turns = (Turn("user", "Q"),)
    self.assertEqual(tokenizer.prompt_text(turns), "<Q>")
    with self.assertRaisesRegex(
      ValueError, "data.chat_template: .* is not a file"
    ):
      preferences.open_tokenizer(data(chat_template="nowhere.jinja"), None)

  @absltest.mock.patch.object(preferences.log, "info")
  def test_what_was_lost_is_logged(self, info):
    path = self.file(
      {"prompt": "Q", "chosen": "a", "rejected": "b"},
      {"prompt": "Q", "chosen": "a", "rejected": "a"},
    )
    preferences.load_pairs(data(), (path,), tokenizer_files.byte_tokenizer())
    said = " ".join(str(call.args) for call in info.call_args_list)
    self.assertIn("1 identical responses", said)

  def test_values_that_do_not_go_together(self):
    for changes, message in (
      ({"split_by": "group"}, "split_by must be one of"),
      ({"mixing": "shuffled"}, "mixing must be one of"),
      ({"eval_fraction": 0.1}, "eval_fraction needs split_by"),
      (
        {"eval_fraction": 0.1, "split_by": "pair", "eval_files": ("a",)},
        "eval_fraction needs split_by and no eval_files",
      ),
      (
        {"eval_fraction": 1.0, "split_by": "pair"},
        r"eval_fraction must be in \(0, 1\), got 1.0",
      ),
    ):
      with self.assertRaisesRegex(ValueError, message):
        data(**changes)
    self.assertFalse(data().holds_out)
    self.assertTrue(data(eval_files=("a",)).holds_out)
    self.assertTrue(data(split_by="pair", eval_fraction=0.1).holds_out)

  def test_responses_alone_keep_their_order(self):
    path = self.file({"prompt": "Q", "responses": ["a", "b", "c"]})
    config = data()
    records = preferences.load_records(config, (path,))
    tokenizer = tokenizer_files.byte_tokenizer()
    alone = preferences.each_response(config, records, tokenizer)
    self.assertEqual(
      [record.responses for record in alone.records],
      [("a", "a"), ("b", "b"), ("c", "c")],
    )

  def test_first_is_the_first(self):
    path = self.file(
      *({"prompt": "Q", "chosen": f"a{i}", "rejected": "b"} for i in range(5))
    )
    config, tokenizer = data(), tokenizer_files.byte_tokenizer()
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
