"""From the name of a source to records, or to an error that says where."""

import gzip
import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.records import reader, sources

PAIR = {"prompt": "Q", "chosen": "a", "rejected": "b"}


class ReadersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def write(self, name, *rows):
    path = self.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    return str(path)

  def read(self, *sources, **kwargs):
    return reader.read_records([*sources], **kwargs)

  @parameterized.parameters(
    ({"chosen": None}, "missing field 'chosen'"),
    ({"colour": "red"}, "unknown column 'colour'"),
    ({"margin": "big"}, "margin must be a number, got text"),
    ({"tie": 1}, "tie must be true or false"),
    ({"prompt": [{"role": "bot", "content": "x"}]}, "role must be one of"),
    ({"chosen": "\ud800"}, "chosen holds a lone surrogate"),
    ({"votes_chosen": 3, "votes_rejected": 1, "n_votes": 2}, "votes sum to 4"),
  )
  def test_a_bad_record_is_named_or_skipped_and_counted(self, change, message):
    path = self.write("a.jsonl.gz", PAIR, {**PAIR, **change}, PAIR)
    with self.assertRaisesRegex(ValueError, f"^{path}:2: .*{message}"):
      self.read(path)
    records, report = self.read(path, on_bad_record="skip")
    self.assertLen(records, 2)
    self.assertEqual(report.counts["skipped"], 1)
    self.assertRegex(report.sources[0].messages[0], f"^{path}:2: .*{message}")

  def test_prompts_alone_are_read_where_they_are_asked_for(self):
    turns = [{"role": "user", "content": "Q"}]
    path = self.write("a.jsonl", PAIR, {"prompt": "R"}, {"prompt": turns})
    with self.assertRaisesRegex(ValueError, f"^{path}:2: missing field 'ch"):
      self.read(path)
    stream = reader.RecordStream([path], need_responses=False)
    found = list(stream)
    self.assertEqual([len(record.responses) for record in found], [2, 0, 0])
    self.assertEqual([record.source for record in found], ["a"] * 3)
    self.assertEqual(stream.whole_report().sources[0].kept, 3)
    sheet = self.folder / "prompts.csv"
    sheet.write_text('prompt,id\nQ,1\n"R, too",2\n,3\n')
    stream = reader.RecordStream([str(sheet)], "skip", need_responses=False)
    self.assertEqual([record.prompt for record in stream], ["Q", "R, too"])
    self.assertRegex(
      stream.whole_report().sources[0].messages[0],
      f"^{sheet}:4: missing field 'prompt'",
    )

  def test_whole_numbers_name_the_same_people_in_every_format(self):
    import datasets

    names = ("annotator", "group", "source", "id")
    rows = [PAIR | dict.fromkeys(names, n) for n in (7, 7.0, "7", "7.0")]
    sheet = self.folder / "b.csv"
    sheet.write_text(
      "prompt,chosen,rejected,annotator,group,source,id\n"
      "Q,a,b,7,7,7,7\nQ,a,b,7.0,7.0,7.0,7.0\n"
    )
    table = str(self.folder / "c.parquet")
    datasets.Dataset.from_list([rows[1]]).to_parquet(table)
    records, _ = self.read(self.write("a.jsonl", *rows), str(sheet), table)
    self.assertLen(records, 7)
    found = {tuple(getattr(r, name) for name in names) for r in records}
    self.assertEqual(found, {("7",) * 4})

  def test_a_malformed_line_is_named_or_skipped(self):
    path = self.write("a.jsonl", PAIR, PAIR)
    with open(path, "ab") as file:
      file.write(b'{"prompt": \xff}\n')
    with self.assertRaisesRegex(ValueError, f"^{path}:3: not UTF-8"):
      self.read(path)
    self.assertEqual(
      self.read(path, on_bad_record="skip")[1].counts["skipped"], 1
    )

  def test_a_broken_file_is_never_skipped(self):
    path = self.write("a.jsonl.gz", *[PAIR] * 99)
    whole = pathlib.Path(path).read_bytes()
    pathlib.Path(path).write_bytes(whole[:-9])
    with self.assertRaisesRegex(ValueError, r"a.jsonl.gz:\d+: broken gzip"):
      self.read(path, on_bad_record="skip")

  def test_empty_and_identical_responses_are_dropped_and_counted(self):
    path = self.write(
      "a.jsonl",
      PAIR,
      {**PAIR, "chosen": " \n"},
      {**PAIR, "rejected": ""},
      {**PAIR, "rejected": "a"},
      {"prompt": "Q", "responses": ["a", "b", "a"]},
    )
    records, report = self.read(path)
    self.assertLen(records, 1)
    self.assertEqual(
      report.counts,
      {"dropped_empty_response": 2, "dropped_identical_responses": 2}
      | {"skipped": 0},
    )
    self.assertEqual((report.sources[0].read, report.sources[0].kept), (5, 1))

  def test_a_source_of_which_nothing_is_left(self):
    path = self.write("a.jsonl", {**PAIR, "rejected": "a"})
    with self.assertRaisesRegex(
      ValueError,
      f"source {path} has no rows left: 1 read, 0 skipped, 0 empty_response, 1",
    ):
      self.read(path)
    path = self.write("b.jsonl", {"x": 1})
    with self.assertRaisesRegex(
      ValueError, f"1 skipped.*first error: {path}:1: unknown column 'x'"
    ):
      self.read(path, on_bad_record="skip")

  def test_files_of_a_glob_are_sorted(self):
    for name in ("c", "a", "b"):
      self.write(f"part-{name}.jsonl", {**PAIR, "id": name})
    records, _ = self.read(f"{self.folder}/part-*.jsonl")
    self.assertEqual([record.id for record in records], ["a", "b", "c"])

  def test_variables_are_expanded(self):
    self.write("a.jsonl", PAIR)
    with absltest.mock.patch.dict("os.environ", HERE=str(self.folder)):
      self.assertLen(self.read("$HERE/a.jsonl")[0], 1)
      self.assertLen(self.read("plain:${HERE}/a.jsonl")[0], 1)

  @parameterized.parameters(
    ("$NOT_SET_9/a.jsonl", "environment variable NOT_SET_9 is not set"),
    ("plain:${NOT_SET_9}/a.jsonl", "environment variable NOT_SET_9 is not set"),
    ("nowhere/*.jsonl", "source nowhere/.*: no file matches"),
    ("nobody:nowhere/*.jsonl", "unknown adapter 'nobody'; allowed: Anthropic"),
    ("hub:nobody/nothing", "^hub:nobody/nothing:1: "),
    ("synthetic:nobody", "preset must be one of drift, eight_groups, labels"),
    ("synthetic:votes:valid", "split must be one of test, train, got 'valid'"),
  )
  def test_a_source_that_is_not_there(self, source, message):
    with self.assertRaisesRegex(ValueError, message):
      self.read(source)

  def test_arguments_are_checked(self):
    with self.assertRaisesRegex(ValueError, "on_bad_record must be one of"):
      self.read("synthetic:votes", on_bad_record="ignore")
    with self.assertRaisesRegex(ValueError, "sources must be a tuple"):
      reader.read_records("synthetic:votes")
    with self.assertRaisesRegex(ValueError, "sources must be a tuple"):
      reader.read_records([])

  def test_extra_columns_are_ignored_by_name(self):
    path = self.write("a.jsonl", {**PAIR, "colour": 1, "shape": 2})
    with self.assertRaisesRegex(ValueError, "unknown column 'shape'"):
      self.read(path, extra_columns=["colour"])
    self.assertLen(self.read(path, extra_columns=["colour", "shape"])[0], 1)

  def test_pairs_files_of_a_known_folder_find_their_adapter(self):
    row = {**PAIR, "margin": 0.5, "gold": None}
    known = self.write("convarg/pairs_mine.jsonl", row)
    self.assertEqual(self.read(known)[0][0].strength, 0.5)
    other = self.write("convarg/mine.jsonl", row)
    with self.assertRaisesRegex(ValueError, "unknown column 'gold'"):
      self.read(other)
    self.assertEqual(self.read(f"convarg:{other}")[0][0].strength, 0.5)
    with self.assertRaisesRegex(ValueError, "unknown column 'gold'"):
      self.read(f"plain:{known}")

  def test_a_hub_name_finds_its_adapter(self):
    name = self.folder / "Anthropic" / "hh-rlhf"
    start = "\n\nHuman: Hi\n\nAssistant:"
    self.write(
      "Anthropic/hh-rlhf/train.jsonl",
      {"chosen": f"{start} yes", "rejected": f"{start} yeah"},
    )
    import datasets

    with absltest.mock.patch.object(
      datasets.config, "HF_DATASETS_CACHE", str(self.folder / "cache")
    ):
      ((record,), _) = self.read(f"hub:{name}")
    self.assertEqual(record.prompt, start)
    self.assertEqual(record.source, "hh-rlhf")

  @parameterized.parameters(
    ("a/shp_train.jsonl.gz", "shp"),
    ("a/train-00000-of-00004.parquet", "a"),
    ("help/pairs_test.jsonl", "help"),
    ("a/two-words.csv", "two_words"),
  )
  def test_a_source_is_named_alike_in_train_and_test(self, path, name):
    self.assertEqual(sources.source_of_path(path), name)

  def test_a_source_column_beats_the_name_of_the_file(self):
    path = self.write("mine.jsonl", PAIR, {**PAIR, "source": "theirs"})
    records, _ = self.read(path)
    self.assertEqual([r.source for r in records], ["mine", "theirs"])

  def test_synthetic_records_come_from_the_seed(self):
    first = self.read("synthetic:two_groups:test", crowd_seed=3)[0]
    again = self.read("synthetic:two_groups:test", crowd_seed=3)[0]
    other = self.read("synthetic:two_groups:test", crowd_seed=4)[0]
    self.assertEqual(first, again)
    self.assertNotEqual(first, other)

  def test_a_stream_reads_again_and_reports_each_pass(self):
    path = self.write("a.jsonl", PAIR, {"x": 1}, {**PAIR, "chosen": "b"})
    stream = reader.RecordStream([path], on_bad_record="skip")
    with self.assertRaisesRegex(ValueError, "reports after a whole pass"):
      stream.whole_report()
    first = list(stream)
    self.assertLen(first, 1)
    self.assertEqual(stream.whole_report().counts["skipped"], 1)
    self.write("a.jsonl", PAIR, PAIR)
    self.assertEqual(list(stream), first * 2)
    self.assertEqual(stream.whole_report().counts["skipped"], 0)

  def test_a_stream_holds_one_row_at_a_time(self):
    path = self.write("a.jsonl", PAIR, PAIR, {"x": 1})
    stream = iter(reader.RecordStream([path]))
    self.assertEqual(next(stream), next(stream))
    with self.assertRaisesRegex(ValueError, f"^{path}:3: unknown column"):
      next(stream)

  def test_pairs_of_a_stream(self):
    ranking = {"prompt": "Q", "responses": ["c", "d", "e"], "id": "k"}
    path = self.write("a.jsonl", PAIR, ranking)
    stream = reader.PairStream(reader.RecordStream([path]))
    self.assertEqual(
      [record.responses for record in stream],
      [("a", "b"), ("c", "d"), ("c", "e"), ("d", "e")],
    )
    # What is kept is decided before a ranking is taken apart.
    kept = reader.PairStream(stream.records, lambda r: r.id == "k")
    self.assertLen(list(kept), 3)

  def test_sources_add_up_in_the_order_given(self):
    first, second = (
      self.write(f"{name}.jsonl", {**PAIR, "id": name}) for name in "ab"
    )
    records, report = self.read(second, first)
    self.assertEqual([record.id for record in records], ["b", "a"])
    self.assertEqual([s.spec for s in report.sources], [second, first])


if __name__ == "__main__":
  absltest.main()
