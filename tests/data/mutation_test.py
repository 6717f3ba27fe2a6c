"""Broken records meet their fate: nothing is lost, nothing is misread."""

import collections
import csv
import json
import os
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.records import files, reader, sources
from jaxalign.data.records.record import parse_record
from jaxalign.data.synthetic import crowd
from tests.data import mutations, real_data


def crowd_rows():
  records = crowd.draw_records(crowd.preset("votes"), split="test")
  return [pair_row(record) for record in records]


def real_rows():
  found = []
  for name in ("hh_helpful", "convarg", "humour", "mt_bench", "qa_feedback"):
    path = real_data.folder(name) / "pairs_test.jsonl.gz"
    found += [pair_row(r) for r in reader.RecordStream([str(path)])]
  return found


def pair_row(record):
  row = record.to_row()
  row["chosen"], row["rejected"] = row.pop("responses")
  return row


class MutationTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def check(self, good, number):
    path = self.folder / "mutated.jsonl"
    mutated = mutations.mutate(good, number, seed=0)
    path.write_bytes(mutated.content)
    # One by one, at its very line.
    found = sources.adapted_rows(str(path), frozenset(), streaming=False)
    for (at, way, fate), (where, row, _) in zip(
      mutated.lines, found, strict=True
    ):
      # Messages hold ways, never texts.
      self.assertEqual(where, f"{path}:{at}", way)
      try:
        if isinstance(row, ValueError):
          raise ValueError(f"{where}: {row}")
        record, error = parse_record(row, where=where), None
      except ValueError as caught:
        record, error = None, str(caught)
      if fate.error is not None:
        self.assertIsNotNone(error, way)
        self.assertRegex(error, f"^{path}:{at}: .*{fate.error}", way)
      else:
        self.assertIsNone(error, way)
        self.assertTrue(fate.record is None or record == fate.record, way)
    # All together: what is kept, dropped and skipped.
    records, report = reader.read_records([str(path)], on_bad_record="skip")
    expected = [f.record for _, _, f in mutated.lines if f.record is not None]
    self.assertTrue(records == expected)
    (source,) = report.sources
    reasons = collections.Counter(
      fate.dropped for _, _, fate in mutated.lines if fate.dropped is not None
    )
    errors = [at for at, _, fate in mutated.lines if fate.error is not None]
    self.assertEqual(source.dropped, dict(reasons))
    self.assertEqual(source.skipped, len(errors))
    self.assertEqual(source.read, number)
    self.assertEqual(source.kept, len(expected))
    for at, message in zip(errors, source.messages, strict=False):
      self.assertStartsWith(message, f"{path}:{at}: ")
    with self.assertRaisesRegex(ValueError, f"^{path}:{errors[0]}: "):
      reader.read_records([str(path)])

  def test_there_are_many_ways_of_every_fate(self):
    row = crowd_rows()[0]
    rng = mutations.np.random.default_rng(0)
    fates = [way(row, rng)[1] for way in mutations.WAYS.values()]
    self.assertGreaterEqual(len(fates), 50)
    for name in mutations.Fate._fields:
      kind = [f for f in fates if f.__getattribute__(name) is not None]
      self.assertGreaterEqual(len(kind), 4, name)

  def test_mutated_crowd(self):
    self.check(crowd_rows(), 3_000)

  def test_a_hundred_thousand_mutated_real_records(self):
    self.check(real_rows(), 100_000)


class FormatsTest(parameterized.TestCase):
  """The same records through every format."""

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def write(self, name, given):
    import datasets

    path = str(self.folder / name)
    columns = sorted({column for row in given for column in row})
    if name.endswith(".parquet"):
      filled = [{c: row.get(c) for c in columns} for row in given]
      datasets.Dataset.from_list(filled).to_parquet(path)
      return path
    with open(path, "w", newline="", encoding="utf-8") as file:
      if name.endswith(".jsonl"):
        file.writelines(json.dumps(row) + os.linesep for row in given)
        return path
      writer = csv.DictWriter(file, columns)
      writer.writeheader()
      for row in given:
        cells = {
          c: json.dumps(v) if c in files.JSON_COLUMNS else v
          for c, v in row.items()
        }
        writer.writerow(cells)
    return path

  @parameterized.parameters("jsonl", "csv", "parquet")
  def test_real_records_are_equal_in_every_format(self, extension):
    given = real_rows()[::7]
    expected = [parse_record(row, where="f:1") for row in given]
    path = self.write(f"a.{extension}", given)
    self.assertTrue(reader.read_records([path])[0] == expected)


if __name__ == "__main__":
  absltest.main()
