"""Parsers of single columns where a whole row would hide the case."""

from absl.testing import absltest, parameterized

from jaxalign.data import columns


class ColumnsTest(parameterized.TestCase):
  def test_a_count_may_be_written_as_a_float(self):
    self.assertEqual(columns.count("n", 3.0), 3)
    self.assertIsInstance(columns.count("n", 3.0), int)

  def test_labels_forgive_four_decimals_and_no_less(self):
    self.assertLen(columns.labels([0.3333, 0.3333, 0.3333], 2)[0], 3)
    with self.assertRaisesRegex(ValueError, "sum to 1"):
      columns.labels([0.33, 0.33, 0.33], 2)

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
    from jaxalign.data import record

    parsed = {*columns.PARSERS, *columns.PER_RESPONSE}
    self.assertEqual(parsed | {"prompt", "responses"}, set(record.FIELDS))
    self.assertEmpty(columns.PARSERS.keys() & columns.PER_RESPONSE.keys())


if __name__ == "__main__":
  absltest.main()
