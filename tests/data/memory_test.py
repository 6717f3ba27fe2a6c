"""Memory does not grow with the length of what is read."""

import json
import pathlib
import subprocess
import sys
import tempfile

import pytest
from absl.testing import absltest

from tests import checkout

# Peaks in KiB after a short and a long file, read in one process.
PROGRAM = """
import resource, sys
from jaxalign.data.batching import pair_dataset
from jaxalign.data.records import reader
from jaxalign.data.tokenization import tokenizer_files

def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def read(path):
  return sum(1 for _ in reader.RecordStream([path]))

def encode(path):
  return len(pair_dataset.encode_pairs(
    reader.RecordStream([path]),
    tokenizer_files.byte_tokenizer(),
    max_length=256,
    on_disk=True,
  ))

for path in sys.argv[2:]:
  print({"read": read, "encode": encode}[sys.argv[1]](path), peak())
"""


def write(path: pathlib.Path, number: int, whys: int = 20) -> None:
  with path.open("w") as file:
    for i in range(number):
      row = {
        "prompt": f"Question {i}: " + "why " * whys,
        "chosen": f" because {i}" + " and so on" * 10,
        "rejected": f" no idea {i}",
        "annotator": f"person {i % 1000}",
        "id": i,
      }
      file.write(json.dumps(row) + "\n")


class MemoryTest(absltest.TestCase):
  def growth(self, what, short, long, whys=20):
    """Bytes that the peak rises by from a short file to a long one.

    Args:
      what: "read" or "encode".
      short: rows of the one.
      long: rows of the other.
      whys: words of a prompt of the other.
    """
    folder = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    write(folder / "short.jsonl", short)
    write(folder / "long.jsonl", long, whys)
    done = subprocess.run(
      [
        sys.executable,
        "-c",
        PROGRAM,
        what,
        str(folder / "short.jsonl"),
        str(folder / "long.jsonl"),
      ],
      cwd=checkout.ROOT,
      check=True,
      capture_output=True,
      text=True,
    )
    first, second = (
      [int(word) for word in line.split()] for line in done.stdout.splitlines()
    )
    self.assertEqual((first[0], second[0]), (short, long))
    return 1024 * (second[1] - first[1])

  def test_reading_ten_times_more_takes_no_more(self):
    self.assertLess(self.growth("read", 10_000, 100_000), 2e6)

  @pytest.mark.slow
  def test_a_million_rows_take_no_more_than_ten_thousand(self):
    self.assertLess(self.growth("read", 10_000, 1_000_000), 2e6)

  @pytest.mark.slow
  def test_long_prompts_take_no_more(self):
    # Encoded whole, a character takes two hundred bytes.
    self.assertLess(self.growth("encode", 1000, 40, whys=12_000), 20e6)
    self.assertLess(self.growth("encode", 1000, 1, whys=2_000_000), 60e6)

  @pytest.mark.slow
  def test_three_hundred_thousand_pairs_on_disk(self):
    # In memory the tokens of a pair would take 1300 bytes, twice over while
    # their array grows.
    self.assertLess(self.growth("encode", 10_000, 310_000) / 300_000, 600)


if __name__ == "__main__":
  absltest.main()
