"""Which tokenizer goes with which model; batches are tested with stages."""

import tempfile
import types

from absl.testing import absltest

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.datasets import section


def opened(tokenizer, folder):
  data = types.SimpleNamespace(tokenizer=tokenizer)
  return section.open_tokenizer(data, folder)


class OpenTokenizerTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.enter_context(tempfile.TemporaryDirectory())

  def save(self):
    own = tokenizer_files.train_tokenizer(["some words"], vocab_size=262)
    own.save(self.folder)
    return own.encode("some")

  def test_bytes_give_way_to_the_tokenizer_of_the_model(self):
    own = self.save()
    for name in (None, "byte"):
      self.assertEqual(opened(name, self.folder).encode("some"), own)
    self.assertNotEqual(opened("byte", None).encode("some"), own)

  def test_bytes_stay_where_the_model_has_none(self):
    self.assertEqual(opened("byte", self.folder).encode("a"), [97])

  def test_neither_is_an_error(self):
    with self.assertRaisesRegex(ValueError, "data.tokenizer must be set"):
      opened(None, None)


if __name__ == "__main__":
  absltest.main()
