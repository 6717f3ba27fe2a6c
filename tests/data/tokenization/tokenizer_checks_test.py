"""Damaged files of a tokenizer end in one line that names the folder."""

import json
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from jaxalign.data.tokenization import tokenizer_files

WRONG = (7, [], {}, [[]], -1, 1.5)


class TokenizerChecksTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(
      self.enter_context(tempfile.TemporaryDirectory())
    )
    tokenizer_files.byte_tokenizer().save(self.folder)
    self.file = self.folder / "tokenizer.json"
    self.content = json.loads(self.file.read_text())

  def load(self):
    return tokenizer_files.load_tokenizer(str(self.folder))

  def assert_refused(self, regex):
    with self.assertRaisesRegex(ValueError, rf"^{self.folder}[^\n]*{regex}"):
      self.load()

  @parameterized.product(
    name=(
      "tokenizer.json",
      "tokenizer_config.json",
      "config.json",
      "jaxalign.json",
    ),
    content=(b"", b" \n", b'{"model": ', b"[]", b"null", b"\xff\xfe{}"),
  )
  def test_a_damaged_file_is_named(self, name, content):
    (self.folder / name).write_bytes(content)
    self.assert_refused(name)

  def test_any_wrong_type_is_one_line(self):
    refused = 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
      file = self.folder / name
      whole = json.loads(file.read_text())
      for key in whole:
        for value in WRONG:
          file.write_text(json.dumps(whole | {key: value}))
          try:
            self.load()
          except ValueError as error:
            refused += 1
            self.assertStartsWith(str(error), str(self.folder))
            self.assertNotIn("\n", str(error))
      file.write_text(json.dumps(whole))
    self.assertGreater(refused, 50)
    self.assertEqual(self.load().encode("hi"), [104, 105])

  def test_a_byte_without_a_token_is_refused(self):
    vocab = self.content["model"]["vocab"]
    del vocab["h"]
    self.file.write_text(json.dumps(self.content))
    self.assert_refused("the byte written as 'h' has no token")
    vocab["h"] = vocab["i"]
    self.file.write_text(json.dumps(self.content))
    self.assert_refused("the byte written as 'i' shares id 105")

  def test_learned_tokens_know_every_byte_too(self):
    learned = tokenizer_files.train_tokenizer(
      ["a cat", "a hat"] * 9, vocab_size=265
    )
    learned.save(self.folder)
    self.load()
    content = json.loads(self.file.read_text())
    del content["model"]["vocab"]["Ā"]
    self.file.write_text(json.dumps(content))
    self.assert_refused("the byte written as 'Ā' has no token")


if __name__ == "__main__":
  absltest.main()
