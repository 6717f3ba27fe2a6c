"""Where a row of a CSV file ends, and what is said where that is unknown."""

import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.records import columns, files, reader


class QuotesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  @parameterized.parameters(
    (b'Q,"a,b\nQ,"c",d\n', "2"),
    (b'Q,"a\nb"c,d\nQ,c,d\n', "2"),
    (b'Q\xff,"a\nb,c",d\nQ,c,d\n', "2"),
    (b'Q,"a\n\xff",d\nQ,c,d\n', "2"),
    (b'Q,c,d\nQ,"a"b,"c\nd,e",f\n', "3"),
  )
  def test_an_open_quote_ends_the_reading_of_a_csv_file(self, text, line):
    path = self.folder / "a.csv"
    path.write_bytes(b"prompt,chosen,rejected\n" + text)
    with self.assertRaisesRegex(
      files.BrokenFile, f"^{path}:{line}: .*a quoted cell does not end here"
    ):
      reader.read_records([str(path)], on_bad_record="skip")

  @parameterized.parameters(
    (b'Q,"a"b,c\n', "expected after"),
    (b"Q,\xff,c\n", "not UTF-8 at byte 3"),
    (b"Q,a\n", "a row must have 3 cells like the header, got 2"),
    (b'Q,"a\nb",c,d\n', "a row must have 3 cells like the header, got 4"),
  )
  def test_a_bad_row_of_a_csv_file_is_skipped_alone(self, text, message):
    path = self.folder / "a.csv"
    path.write_bytes(b"prompt,chosen,rejected\n" + text + b'Q,"e\nf",g\n')
    records, report = reader.read_records([str(path)], on_bad_record="skip")
    self.assertEqual([r.responses for r in records], [("e\nf", "g")])
    self.assertRegex(report.sources[0].messages[0], f"^{path}:2: .*{message}")
    self.assertEqual(report.sources[0].read, 2)

  def test_rows_are_numbered_by_their_first_line(self):
    path = self.folder / "a.csv"
    path.write_bytes(b'prompt,chosen\n"a\nb",c\nd,\n')
    self.assertEqual(
      list(files.read_csv(str(path))),
      [
        (f"{path}:2", {"prompt": "a\nb", "chosen": "c"}),
        (f"{path}:4", {"prompt": "d", "chosen": None}),
      ],
    )

  def test_every_column_per_response_holds_json(self):
    self.assertContainsSubset(columns.PER_RESPONSE, files.JSON_COLUMNS)

  def test_a_prior_is_read_from_a_cell(self):
    path = self.folder / "a.csv"
    cell = '"[[0.25,0.75],[0.5,0.5]]"'
    path.write_text(
      f"prompt,chosen,rejected,labels,label_prior\nQ,a,b,{cell},{cell}\n"
    )
    records, _ = reader.read_records([str(path)], on_bad_record="error")
    self.assertEqual(records[0].label_prior, ((0.25, 0.75), (0.5, 0.5)))


if __name__ == "__main__":
  absltest.main()
