r"""Tokenizer training: byte-level BPE from the words of preferences.

python -m jaxalign.experiments.train_tokenizer \
    --config=configs/tokenizer_crowd.py --workdir=runs/tokenizer_crowd

For models that start from scratch: a sequence is then a fraction of its bytes.
`data.tokenizer=runs/tokenizer_crowd/tokenizer` is how other stages read it.
"""

import dataclasses
from collections.abc import Iterator

from etils import epath

from jaxalign.data.records import reader
from jaxalign.data.records.chat import text_of
from jaxalign.data.tokenization import encoding, tokenizer_files
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import filesystem


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """Which texts are counted.

  Attributes:
    train_files: sources to learn from: globs, `hub:NAME[:subset][:split]` or
      `synthetic:NAME[:split]`; prompts and all responses count.
    on_bad_record: "error" or "skip" (counted).
    extra_columns: columns beyond the schema to ignore.
    crowd_seed: seed of synthetic sources.
  """

  train_files: tuple[str, ...]
  on_bad_record: str = "error"
  extra_columns: tuple[str, ...] = ()
  crowd_seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `train_tokenizer` reads.

  Attributes:
    seed: of the run; merges follow from counts, nothing is drawn.
    data: the texts.
    vocab_size: tokens at most, the 256 bytes and three markers among them.
  """

  seed: int = 0
  data: TextConfig
  vocab_size: int


def run(config: Config, workdir: epath.Path) -> None:
  """Writes `tokenizer/`, a Hugging Face folder, and its size to `eval.json`.

  Args:
    config: the resolved config.
    workdir: gets tokenizer/ and eval.json.

  Raises:
    ValueError: begins with `FILE:LINE:` for a bad record; or `vocab_size` is
      too small.
  """
  if not multihost.is_main():
    return
  made = tokenizer_files.train_tokenizer(
    _texts(config.data), vocab_size=config.vocab_size
  )
  with filesystem.filled(workdir / "tokenizer") as folder:
    made.save(folder)
  num_bytes = num_tokens = 0
  for text in _texts(config.data):
    num_bytes += len(text.encode())
    num_tokens += len(made.encode(text))
  sizes = {
    "vocab_size": made.vocab_size,
    "bytes_per_token": num_bytes / num_tokens,
  }
  configuration.write_json(workdir / "eval.json", sizes)
  folder = workdir / "tokenizer"
  summary.say(
    [
      f"{made.vocab_size:,} tokens; one holds {sizes['bytes_per_token']:.2f} "
      "bytes of these texts (of the byte tokenizer: 1)"
    ],
    tokenizer=folder,
    then=summary.command(
      "train_reward", "rm_bt_crowd", f"--config.data.tokenizer={folder}"
    ),
  )


def _texts(config: TextConfig) -> Iterator[str]:
  """Each prompt once per record, and each response; of a long text, pieces."""
  stream = reader.RecordStream(
    config.train_files,
    config.on_bad_record,
    config.extra_columns,
    config.crowd_seed,
  )
  for record in stream:
    for text in (record.prompt, *record.responses):
      yield from encoding.pieces(text_of(text))


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
