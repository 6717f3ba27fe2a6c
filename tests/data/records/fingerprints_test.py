"""A moved file is the same input, a changed one is another."""

import json
import pathlib
import tempfile

from absl.testing import absltest

from jaxalign.data.records import fingerprints

ROW = json.dumps({"prompt": "Q", "chosen": " a", "rejected": " b"})


class FingerprintsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )

  def written(self, name, text):
    path = self.folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)

  def test_a_file_is_its_content(self):
    one = self.written("a.jsonl", ROW)
    moved = self.written("elsewhere/b.jsonl", ROW)
    changed = self.written("c.jsonl", f"{ROW}\n")
    of = lambda *paths: fingerprints.of_sources(paths)
    self.assertEqual(of(one), of(moved))
    self.assertNotEqual(of(one), of(changed))
    self.assertNotEqual(of(one, changed), of(changed, one))

  def test_what_is_drawn_is_its_name(self):
    names = "synthetic:two_groups:train", "hub:owner/name:train"
    found = {fingerprints.of_sources((name,)) for name in names}
    self.assertLen(found, 2)
    self.assertIn(fingerprints.of_sources((names[0],)), found)

  def test_a_source_without_files_is_an_error(self):
    with self.assertRaisesRegex(ValueError, "none"):
      fingerprints.of_sources((str(self.folder / "none*.jsonl"),))

  def test_a_folder_is_the_files_that_count(self):
    self.written("model/config.json", "{}")
    self.written("copy/config.json", "{}")
    of = lambda name: fingerprints.of_folder(
      self.folder / name, fingerprints.WEIGHTS
    )
    before = of("model")
    self.assertEqual(before, of("copy"))
    self.written("model/README.md", "not read")
    self.assertEqual(of("model"), before)
    self.written("model/config.json", '{"a": 1}')
    self.assertNotEqual(of("model"), before)


if __name__ == "__main__":
  absltest.main()
