"""Lines that know their number, and JSON that is not let pass."""

import gzip
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.records import files


class LinesTest(parameterized.TestCase):
  @parameterized.parameters("a.txt", "a.txt.gz")
  def test_a_bad_line_is_passed_over(self, name):
    path = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()), name)
    content = b"\xef\xbb\xbfone\n\xff two\nthree"
    path.write_bytes(gzip.compress(content) if "gz" in name else content)
    with files.Lines(str(path)) as found:
      self.assertEqual(next(found), "one\n")
      with self.assertRaisesRegex(ValueError, "not UTF-8 at byte 1 of the"):
        next(found)
      self.assertEqual((found.number, found.raw), (2, b"\xff two\n"))
      self.assertEqual(next(found), "three")
      self.assertEqual(found.number, 3)
      self.assertEmpty(list(found))

  @parameterized.parameters(
    ('{"a": 1,}', "malformed JSON at column [89]"),
    ('{"a": 1, "a": 2}', "key 'a' appears twice"),
    ('{"a": {"b": 1, "b": 2}}', "key 'b' appears twice"),
    ('{"a": NaN}', "numbers must be finite, got NaN"),
    ('{"a": -Infinity}', "numbers must be finite, got -Infinity"),
    ("[" * 100_000, "malformed JSON: nested too deeply"),
  )
  def test_json_that_is_refused(self, text, message):
    with self.assertRaisesRegex(ValueError, message):
      files.parse_json(text)

  def test_json(self):
    self.assertEqual(files.parse_json('{"a": [1, null]}'), {"a": [1, None]})


if __name__ == "__main__":
  absltest.main()
