"""An adapter names every column: nothing is lost in silence."""

from absl.testing import absltest, parameterized

from jaxalign.data.adapters import base


def apply(table, row, **kwargs):
  ((where, found),) = table.apply([("f:1", row)], **kwargs)
  if where != "f:1":
    raise AssertionError(where)
  return found


class AdapterTest(parameterized.TestCase):
  def test_ignores_and_renames_what_it_names(self):
    table = base.Adapter(ignore=("x",), rename={"margin": "strength"})
    self.assertEqual(
      apply(table, {"x": 1, "margin": 2, "y": 3}), {"strength": 2, "y": 3}
    )

  def test_extra_columns_are_ignored_too(self):
    found = apply(
      base.Adapter(), {"x": 1, "y": 2}, extra_columns=frozenset({"x"})
    )
    self.assertEqual(found, {"y": 2})

  @parameterized.parameters("row", "stream")
  def test_a_column_that_nobody_reads_is_an_error(self, kind):
    function = {
      "row": lambda row: {"prompt": row["text"]},
      "stream": lambda found: found,
    }[kind]
    table = base.Adapter(reads=("text",), **{kind: function})
    error = apply(table, {"text": "Q", "extra": 1})
    self.assertIsInstance(error, ValueError)
    self.assertRegex(str(error), "unknown column 'extra'; the adapter reads")
    self.assertNotIsInstance(apply(table, {"text": "Q"}), ValueError)

  def test_prefixes_are_ignored(self):
    table = base.Adapter(ignore_prefixes=("Q1_",))
    self.assertEqual(apply(table, {"Q1_x": 1, "Q11": 2}), {"Q11": 2})

  def test_a_row_may_become_several_from_one_place(self):
    table = base.Adapter(row=lambda row: [{"n": i} for i in range(row["k"])])
    found = list(table.apply([("f:1", {"k": 2}), ("f:2", {"k": 0})]))
    self.assertEqual(found, [("f:1", {"n": 0}), ("f:1", {"n": 1})])

  def test_a_join_sees_the_tables_it_asks_for(self):
    def join(tables):
      texts = {row["key"]: row["text"] for row in tables["texts"]}
      return lambda row: {"prompt": texts[row["key"]]}

    table = base.Adapter(beside=("texts",), join=join)
    rows = {"texts": [{"key": 1, "text": "Q"}], "unused": []}
    self.assertEqual(apply(table, {"key": 1}, tables=rows), {"prompt": "Q"})
    with self.assertRaisesRegex(ValueError, "missing field 'texts'"):
      apply(table, {"key": 1})

  def test_errors_of_reader_and_row_function_pass_on(self):
    def refuse(row):
      raise ValueError("no")

    table = base.Adapter(row=refuse)
    self.assertEqual(str(apply(table, {})), "no")
    error = ValueError("broken line")
    self.assertIs(apply(table, error), error)

  @parameterized.parameters(
    (base.need, {}, "missing field 'x'"),
    (base.need, {"x": None}, "missing field 'x'"),
    (base.need, "text", "the object that holds 'x' must be one, got text"),
    (base.need_text, {"x": 1}, "x must be text, got int 1"),
    (base.need_number, {"x": "1"}, "x must be a number, got text"),
    (base.need_object, {"x": [1]}, "x must be an object, got a list"),
    (base.need_list, {"x": "ab"}, "x must be a list, got text"),
  )
  def test_what_a_row_function_needs(self, need, row, message):
    with self.assertRaisesRegex(ValueError, message):
      need(row, "x")


if __name__ == "__main__":
  absltest.main()
