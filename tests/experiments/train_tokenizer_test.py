"""The tokenizer of a file's words: a folder that other stages open."""

import dataclasses
import json
import tempfile

from absl.testing import absltest
from etils import epath

from jaxalign.data.records import reader
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import train_tokenizer
from jaxalign.experiments.common import config as configuration
from tests import shipped


def config(**changes):
  made = shipped.config("tokenizer_crowd")
  made.update(changes)
  return configuration.to_dataclass(train_tokenizer.Config, made)


class TrainTokenizerTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = epath.Path(tempfile.mkdtemp())

  def test_the_crowd_needs_a_third_of_its_bytes(self):
    train_tokenizer.run(config(), self.workdir)
    made = tokenizer_files.load_tokenizer(str(self.workdir / "tokenizer"))
    sizes = json.loads((self.workdir / "eval.json").read_text())
    self.assertEqual(sizes["vocab_size"], made.vocab_size)
    self.assertGreater(sizes["bytes_per_token"], 3.0)
    # What is reported is what the folder does, here on part of the texts.
    texts = [
      text
      for record in reader.RecordStream(("synthetic:two_groups:train",))
      for text in (record.prompt, *record.responses)
    ]
    num_tokens = sum(len(made.encode(text)) for text in texts)
    num_bytes = sum(len(text.encode()) for text in texts)
    self.assertAlmostEqual(sizes["bytes_per_token"], num_bytes / num_tokens)
    self.assertEqual(made.decode(made.encode(texts[0])), texts[0])

  def test_a_bad_line_is_named(self):
    path = self.workdir / "bad.jsonl"
    path.write_text('{"prompt": "Hi", "chosen": "a"}\n')
    cfg = config()
    data = dataclasses.replace(cfg.data, train_files=(str(path),))
    with self.assertRaisesRegex(ValueError, r"bad\.jsonl:1:"):
      train_tokenizer.run(
        dataclasses.replace(cfg, data=data), self.workdir / "out"
      )


if __name__ == "__main__":
  absltest.main()
