"""Parsers of single columns where a whole row would hide the case."""

from absl.testing import absltest, parameterized

from jaxalign.data.records import columns


class ColumnsTest(parameterized.TestCase):
  def test_a_count_may_be_written_as_a_float(self):
    self.assertEqual(columns.count("n", 3.0), 3)
    self.assertIsInstance(columns.count("n", 3.0), int)

  def test_labels_forgive_four_decimals_and_no_less(self):
    self.assertLen(columns.labels([0.3333, 0.3333, 0.3333], 2)[0], 3)
    with self.assertRaisesRegex(ValueError, "sum to 1"):
      columns.labels([0.33, 0.33, 0.33], 2)

  @parameterized.parameters(
    (7, "7"),
    (7.0, "7"),
    ("7.0", "7"),
    ("-12.000", "-12"),
    (0.0, "0"),
    (2**70, str(2**70)),
    # Versions, numbers with leading zeros and fractions are names.
    ("1.0.0", "1.0.0"),
    ("007.0", "007.0"),
    ("7.5", "7.5"),
    ("v1.0", "v1.0"),
  )
  def test_a_whole_number_names_one_person_however_written(self, value, name):
    self.assertEqual(columns.label("annotator", value), name)

  @parameterized.parameters(
    (7.5, "annotator must be text or a whole number, got float 7.5"),
    (float("nan"), "must be text or a whole number, got float nan"),
    (float("inf"), "must be text or a whole number, got float inf"),
    (True, "must be text or a whole number, got a boolean"),
    # 2**53 + 1 is no float, so this may have been two people.
    (2.0**53 + 2, "too large to be exact as a float.*write it as text"),
  )
  def test_a_number_that_names_nobody(self, value, message):
    with self.assertRaisesRegex(ValueError, message):
      columns.label("annotator", value)

  @parameterized.parameters(
    (None, "nothing"),
    ("x" * 99, "text"),
    ([1], "a list"),
    ({}, "an object"),
    (2, "int 2"),
  )
  def test_kind_never_quotes_text(self, value, expected):
    self.assertEqual(columns.kind(value), expected)

  def test_every_column_of_a_record_has_one_parser(self):
    from jaxalign.data.records import record

    parsed = {*columns.PARSERS, *columns.PER_RESPONSE}
    self.assertEqual(parsed | {"prompt", "responses"}, set(record.FIELDS))
    self.assertEmpty(columns.PARSERS.keys() & columns.PER_RESPONSE.keys())


if __name__ == "__main__":
  absltest.main()
