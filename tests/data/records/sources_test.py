"""From a source's name to adapted rows, with the files that lie beside."""

import gzip
import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.records import sources
from tests import object_store

VOTE = {
  "topic": "t",
  "arg1": "1",
  "arg2": "2",
  "gold": None,
  "votes": [{"worker": "w", "value": "a2", "worker_stance": "same"}],
}


def argument(name, text):
  return {"arg_id": name, "debate": "D", "stance": "S", "text": text}


class SourcesTest(parameterized.TestCase):
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

  def rows(self, spec, extra=()):
    found = sources.adapted_rows(spec, frozenset(extra), streaming=False)
    return [(row, source) for _, row, source in found]

  def test_a_table_of_the_same_part_beats_one_without(self):
    path = self.write("convarg/votes_test.jsonl.gz", VOTE)
    self.write("convarg/arguments.jsonl", argument("1", "all"))
    self.write("convarg/arguments_train.jsonl", argument("1", "train"))
    self.write(
      "convarg/arguments_test.jsonl", argument("1", "a"), argument("2", "b")
    )
    ((row, _),) = self.rows(path)
    self.assertEqual((row["chosen"], row["rejected"]), (" b", " a"))

  def test_a_table_without_a_part_serves_all_parts(self):
    path = self.write("convarg/votes_test.jsonl", VOTE)
    self.write(
      "convarg/arguments.jsonl", argument("1", "a"), argument("2", "b")
    )
    self.assertEqual(self.rows(path)[0][0]["chosen"], " b")

  def test_a_json_list_is_a_table(self):
    path = self.write("convarg/votes_test.jsonl", VOTE)
    table = [argument("1", "a"), argument("2", "b")]
    (self.folder / "convarg/arguments.json").write_text(json.dumps(table))
    self.assertEqual(self.rows(path)[0][0]["chosen"], " b")

  def test_a_missing_table_or_entry_is_named(self):
    path = self.write("convarg/votes_test.jsonl", VOTE)
    with self.assertRaisesRegex(ValueError, "needs a file arguments beside it"):
      self.rows(path)
    self.write("convarg/arguments.jsonl", argument("1", "a"))
    ((row, _),) = self.rows(path)
    self.assertRegex(str(row), "argument 2 is not in the file beside")
    self.write("convarg/arguments.jsonl", [1])
    with self.assertRaisesRegex(ValueError, "arguments.jsonl:1: the line must"):
      self.rows(path)

  def test_the_kind_of_file_decides_in_a_known_folder_only(self):
    elsewhere = self.write("mine/votes_test.jsonl", VOTE)
    self.assertEqual(self.rows(elsewhere), [(VOTE, "votes")])
    self.write("mine/arguments.jsonl", argument("1", "a"), argument("2", "b"))
    named = self.rows(f"convarg/votes:{elsewhere}")
    self.assertEqual(named[0][0]["chosen"], " b")

  def test_extra_columns_reach_the_adapter(self):
    path = self.write("convarg/votes_test.jsonl", {**VOTE, "new": 1})
    self.write(
      "convarg/arguments.jsonl", argument("1", "a"), argument("2", "b")
    )
    self.assertRegex(str(self.rows(path)[0][0]), "unknown column 'new'")
    self.assertEqual(self.rows(path, ["new"])[0][0]["chosen"], " b")


class ObjectStoreTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.store = object_store.install()
    for name, number in (("b", 2), ("a", 1)):
      row = json.dumps({"prompt": "p", "chosen": f"c{number}", "rejected": "r"})
      self.store.pipe(
        f"s3://bucket/deep/{name}.jsonl.gz", gzip.compress(f"{row}\n".encode())
      )
    self.store.pipe(
      "s3://bucket/deep/c.csv", b"prompt,chosen,rejected\np,3,r\n"
    )

  def chosen(self, spec):
    found = sources.adapted_rows(spec, frozenset(), streaming=False)
    return [(where, row["chosen"]) for where, row, _ in found]

  def test_a_glob_reads_packed_and_plain_files_in_order(self):
    self.assertEqual(
      self.chosen("s3://bucket/*/*.*"),
      [
        ("s3://bucket/deep/a.jsonl.gz:1", "c1"),
        ("s3://bucket/deep/b.jsonl.gz:1", "c2"),
        ("s3://bucket/deep/c.csv:2", "3"),
      ],
    )
    self.assertLen(self.chosen("s3://bucket/deep/c.csv"), 1)

  def test_tables_beside_a_file_are_found_there_too(self):
    lines = lambda *rows: "".join(f"{json.dumps(r)}\n" for r in rows).encode()
    self.store.pipe("s3://bucket/mine/votes_test.jsonl", lines(VOTE))
    self.store.pipe(
      "s3://bucket/mine/arguments.jsonl",
      lines(argument("1", "a"), argument("2", "b")),
    )
    spec = "convarg/votes:s3://bucket/mine/votes_*.jsonl"
    ((_, chosen),) = self.chosen(spec)
    self.assertEqual(chosen, " b")

  def test_nothing_there_is_an_error(self):
    for pattern in ("s3://bucket/none.jsonl", "s3://bucket/none/*.jsonl"):
      with self.assertRaisesRegex(ValueError, "no file matches s3://bucket"):
        self.chosen(pattern)
    with self.assertRaisesRegex(ValueError, "source https:.* download what"):
      self.chosen("https://example.com/a.jsonl")


if __name__ == "__main__":
  absltest.main()
