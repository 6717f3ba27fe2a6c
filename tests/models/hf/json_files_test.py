"""A file that holds no JSON object is one line with its name."""

import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.models.hf import json_files


class JsonFilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = self.enter_context(tempfile.TemporaryDirectory())
    self.file = pathlib.Path(folder, "config.json")

  def test_fields(self):
    self.file.write_text('{"a": [1, "é"]}', encoding="utf-8")
    self.assertEqual(json_files.read_object(self.file), {"a": [1, "é"]})

  @parameterized.parameters(
    (b"", "is empty; fetch or save"),
    (b" \n", "is empty"),
    (b'{"a": ', "not JSON .*cut short"),
    (b"\xff{}", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    (b"[]", "must hold an object, got a list"),
    (b"null", "must hold an object, got a NoneType"),
  )
  def test_anything_else_is_one_line(self, content, regex):
    self.file.write_bytes(content)
    with self.assertRaisesRegex(ValueError, f"^{self.file}: {regex}[^\n]*$"):
      json_files.read_object(self.file)

  def test_no_file(self):
    with self.assertRaisesRegex(FileNotFoundError, "config.json is missing"):
      json_files.read_object(self.file)


if __name__ == "__main__":
  absltest.main()
