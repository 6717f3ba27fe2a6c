"""Files as people have them, and what they are told."""

import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import base
from jaxalign.data.records import reader

ROW = {"prompt": "Q", "chosen": " a", "rejected": " b"}
KTO = {"prompt": "Q", "completion": " a", "label": True}


def lines(*rows):
  return "".join(f"{json.dumps(row)}\n" for row in rows)


def csv(mark):
  return f"{mark.join(ROW)}\n{mark.join(ROW.values())}\n"


class ColumnHintsTest(parameterized.TestCase):
  @parameterized.parameters(
    (
      "a.jsonl",
      lines({"prompt": "Q", "chosn": " a", "rejected": " b"}),
      "a.jsonl:1: unknown column 'chosn'; did you mean 'chosen'.; allowed: ",
    ),
    (
      "a.jsonl",
      lines(ROW, ROW | {"Annotator": "x"}),
      "a.jsonl:2: unknown column 'Annotator'; did you mean 'annotator'.; allow",
    ),
    ("a.jsonl", lines(ROW | {"zzz": 1}), "unknown column 'zzz'; allowed: "),
    ("a.jsonl", lines(KTO), "a.jsonl:1: unknown column 'completion'; .* KTO"),
    (
      "a.jsonl",
      lines({"prompt": "Q", "completion": " a"}),
      "'completion'; did you mean 'responses', a list with one text",
    ),
    ("a.csv", csv(";"), "a.csv:1: cells are parted by semicolons"),
    ("a.csv", csv("\t"), "a.csv:1: cells are parted by tabs"),
    ("a.csv", csv("|"), "a.csv:1: cells are parted by bars"),
    ("a.csv", "", "a.csv:1: the first line must hold the column names"),
    ("a.csv", "prompt,chosen,rejected\n", "a.csv is empty: there is no row"),
    ("a.jsonl", "", "source .*a.jsonl is empty: there is no row in it"),
    ("a.jsonl", "\n\n", "source .*a.jsonl is empty: there is no row in it"),
    # By the name of the file the one of an adapter, which reads other columns.
  )
  def test_what_is_said(self, name, text, message):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    file = folder / name
    file.write_text(text)
    with self.assertRaisesRegex(ValueError, message):
      reader.read_records([str(file)])

  def test_an_adapter_names_the_column_that_it_reads(self):
    table = base.Adapter(reads=("history",), row=lambda row: row)
    ((_, error),) = table.apply([("a:1", {"histry": "Q"})])
    self.assertRegex(
      str(error), "'histry'; did you mean 'history'.; the adapter reads history"
    )

  def test_a_file_of_prompts_has_one_column(self):
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    (folder / "a.csv").write_text("prompt\nQ; R | S\n")
    found = reader.RecordStream([str(folder / "a.csv")], need_responses=False)
    self.assertEqual([record.prompt for record in found], ["Q; R | S"])


if __name__ == "__main__":
  absltest.main()
