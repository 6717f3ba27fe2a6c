"""Rows of files: what is read, and where exactly a file is broken."""

import gzip
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from jaxalign.data.records import files

GOOD = b'{"prompt": "Q", "chosen": "a", "rejected": "b"}\n'
HEADER = b"prompt,chosen,rejected,votes_chosen,tie,group\n"


class RowsTest(parameterized.TestCase):
  def write(self, name, content):
    path = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()), name)
    path.write_bytes(gzip.compress(content) if ".gz" in name else content)
    return str(path)

  def read(self, name, content):
    path = self.write(name, content)
    return [
      (where.removeprefix(path), row) for where, row in files.read_file(path)
    ]

  @parameterized.parameters("a.jsonl", "a.jsonl.gz")
  def test_jsonl_counts_lines_and_allows_blank_ones(self, name):
    found = self.read(name, GOOD + b"\n  \n" + GOOD)
    self.assertEqual([where for where, _ in found], [":1", ":4"])
    self.assertEqual(found[0][1], json.loads(GOOD))

  def test_json_is_a_list_or_lines(self):
    row = json.loads(GOOD)
    text = json.dumps([row, 7, row], indent=2).encode()
    found = self.read("a.json", b"\xef\xbb\xbf\n" + text)
    self.assertEqual([where for where, _ in found], [":1", ":2", ":3"])
    self.assertEqual((found[0][1], found[2][1]), (row, row))
    self.assertRegex(str(found[1][1]), "must be a JSON object")
    self.assertEqual(self.read("a.json", GOOD), self.read("a.jsonl", GOOD))
    self.assertEqual(self.read("a.json", b"[]"), [])
    for content in (text[:-5], b'[{"a": "\xff"}]', b"[NaN]"):
      with self.assertRaisesRegex(files.BrokenFile, "a.json: "):
        self.read("a.json", content)

  def test_a_byte_order_mark_is_no_text(self):
    self.assertEqual(
      self.read("a.jsonl", b"\xef\xbb\xbf" + GOOD), self.read("b.jsonl", GOOD)
    )
    found = self.read("a.csv", b"\xef\xbb\xbfprompt\nQ\n")
    self.assertEqual(found, [(":2", {"prompt": "Q"})])

  @parameterized.parameters(
    (b'{"prompt": "Q",\n', "malformed JSON at column"),
    (b"[1, 2]\n", "the line must hold a JSON object"),
    (b'{"margin": NaN}\n', "numbers must be finite, got NaN"),
    (b'{"margin": -Infinity}\n', "numbers must be finite, got -Infinity"),
    (b'{"a": 1, "a": 2}\n', "key 'a' appears twice"),
    (b'{"a": {"b": 1, "b": 2}}\n', "key 'b' appears twice"),
    (b'{"a": "\xff"}\n', "not UTF-8 at byte 8"),
    (b"[" * 100_000 + b"\n", "nested too deeply"),
    (b'{"a": ' + b"9" * 9_999 + b"}\n", "limit"),
  )
  def test_a_broken_line_is_named_and_the_next_one_read(self, line, message):
    found = self.read("a.jsonl", GOOD + line + GOOD)
    self.assertEqual([where for where, _ in found], [":1", ":2", ":3"])
    self.assertIsInstance(found[1][1], ValueError)
    self.assertRegex(str(found[1][1]), message)
    self.assertEqual(found[2], (":3", json.loads(GOOD)))

  def test_csv_converts_what_is_no_text(self):
    found = self.read(
      "a.csv.gz",
      HEADER + b'"two\nlines",a,b,3,TRUE,7\nQ,a,b,,,\n\nQ,a,b,,,\n',
    )
    # A record is named by its first line.
    self.assertEqual([where for where, _ in found], [":2", ":4", ":6"])
    self.assertEqual(
      found[0][1],
      {
        "prompt": "two\nlines",
        "chosen": "a",
        "rejected": "b",
        "votes_chosen": 3,
        "tie": True,
        "group": "7",
      },
    )
    self.assertIsNone(found[1][1]["votes_chosen"])

  def test_csv_reads_long_cells(self):
    found = self.read("a.csv", b"prompt\n" + b"x" * 200_000 + b"\n")
    self.assertLen(found[0][1]["prompt"], 200_000)

  @parameterized.parameters(
    (b"Q,a,b,,\n", "a row must have 6 cells like the header, got 5"),
    (b"Q,a,b,three,,\n", "votes_chosen must be a number, true, false or JSON"),
    (b"Q,a,b,3,yes,\n", "tie must be a number, true, false or JSON"),
    (b'Q,a,"b"c,3,,\n', "',' expected after"),
    (b"Q,a,\xff,3,,\n", "not UTF-8 at byte 5"),
  )
  def test_a_broken_csv_row_is_named_and_the_next_one_read(self, row, message):
    found = self.read("a.csv", HEADER + row + b"Q,a,b,,,\n")
    self.assertEqual([where for where, _ in found], [":2", ":3"])
    self.assertRegex(str(found[0][1]), message)
    self.assertEqual(found[1][1]["prompt"], "Q")

  @parameterized.parameters(
    ("a.csv", b"prompt,prompt\n", "a.csv:1: column 'prompt' appears twice"),
    ("a.csv", b"\nprompt\n", "a.csv:1: the first line must hold the column"),
    ("a.csv", b"prom\xffpt\n", "a.csv:1: not UTF-8 at byte 5"),
    ("a.txt", b"", "a.txt: extension must be one of .jsonl, .jsonl.gz, .csv"),
  )
  def test_an_unreadable_file(self, name, content, message):
    with self.assertRaisesRegex(ValueError, message):
      self.read(name, content)

  def test_a_gzip_file_cut_short_is_named_at_the_cut(self):
    whole = gzip.compress(GOOD * 10_000, mtime=0)
    path = self.write("a.jsonl", whole[:-20])
    path = str(pathlib.Path(path).rename(path + ".gz"))
    with self.assertRaisesRegex(
      files.BrokenFile, r"a.jsonl.gz:\d+: broken gzip"
    ):
      list(files.read_file(path))

  def test_a_plain_file_that_claims_to_be_gzip(self):
    path = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory()), "a.jsonl.gz"
    )
    path.write_bytes(GOOD)
    with self.assertRaisesRegex(files.BrokenFile, "a.jsonl.gz:1: broken gzip"):
      list(files.read_file(str(path)))


class DatasetsTest(parameterized.TestCase):
  """Parquet and the hub, through `datasets`, without a network."""

  def setUp(self):
    super().setUp()
    import datasets

    self.datasets = datasets
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    self.enter_context(
      mock.patch.object(
        datasets.config, "HF_DATASETS_CACHE", str(self.folder / "cache")
      )
    )

  def test_parquet(self):
    path = str(self.folder / "a.parquet")
    given = [{"prompt": "Q", "responses": ["a", "b"], "margin": None}] * 2
    self.datasets.Dataset.from_list(given).to_parquet(path)
    self.assertEqual(
      list(files.read_file(path)),
      [(f"{path}:1", given[0]), (f"{path}:2", given[1])],
    )

  def test_broken_parquet(self):
    path = self.folder / "a.parquet"
    path.write_bytes(b"PAR1 no more")
    with self.assertRaisesRegex(files.BrokenFile, f"^{path}:1: "):
      list(files.read_file(str(path)))

  def test_a_folder_with_splits_and_subsets(self):
    name = self.folder / "set"
    for subset in ("first", "second"):
      for split in ("train", "test"):
        path = name / subset / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"prompt": f"{subset} {split}"}) + "\n")
    (name / "README.md").write_text(
      "---\nconfigs:\n"
      "- config_name: first\n  data_dir: first\n  default: true\n"
      "- config_name: second\n  data_dir: second\n---\n"
    )
    for spec, expected in (
      ("", "first train"),
      (":test", "first test"),
      (":second", "second train"),
      (":second:test", "second test"),
      ("::test", "first test"),
    ):
      parts = files.hub_parts(f"{name}{spec}")
      ((where, row),) = files.read_hub(*parts)
      self.assertEqual(row["prompt"], expected, spec)
      self.assertEqual(where, f"hub:{name}:1")

  def test_streaming_reads_the_same_rows_and_keeps_no_copy(self):
    name = self.folder / "set"
    name.mkdir()
    rows_given = [{"prompt": f"Q{i}", "n": i} for i in range(5)]
    text = "".join(json.dumps(row) + "\n" for row in rows_given)
    (name / "train.jsonl").write_text(text)
    streamed = list(files.read_hub(str(name), None, "train", streaming=True))
    self.assertEmpty(list(self.folder.glob("cache/**/*.arrow")))
    self.assertEqual([row for _, row in streamed], rows_given)
    self.assertEqual(list(files.read_hub(str(name), None, "train")), streamed)
    self.assertNotEmpty(list(self.folder.glob("cache/**/*.arrow")))

  def test_a_name_that_cannot_be_loaded(self):
    with self.assertRaisesRegex(ValueError, "^hub:nobody/nothing:1: "):
      list(files.read_hub("nobody/nothing", None, "train"))
    with self.assertRaisesRegex(ValueError, "^hub:nobody/nothing: "):
      files.hub_parts("nobody/nothing:x")
    with self.assertRaisesRegex(ValueError, "expected hub:NAME"):
      files.hub_parts("a:b:c:d")


if __name__ == "__main__":
  absltest.main()
