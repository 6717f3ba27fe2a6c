r"""Verification of a local checkpoint against torch: logits, scores, padding.

python -m jaxalign.experiments.verify --config=configs/verify.py \
    --config.model=FOLDER --workdir=runs/verify
"""

import dataclasses
import logging
import sys
import tempfile
from typing import Any

import jax
import numpy as np
import transformers
from etils import epath
from rich import console, table

from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.reports import parity
from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import weights
from jaxalign.ops import checks
from jaxalign.runtime.io import filesystem

log = logging.getLogger("jaxalign")

TEXTS = (
  "Once upon a time, there was a little cat.",
  "Is it fair? Most say yes; the others were not asked.",
  "  two  spaces, a tab\tand\na new line — naïve café, 北京, 🙂",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Checkpoint to verify, and tolerances.

  Attributes:
    seed: of the random tokens.
    model: Hugging Face folder of a language model or a classifier, or its id on
      the hub.
    rows: random sequences.
    length: their length in tokens.
    tolerance: largest difference of a logit, hidden state or score in float32,
      as a share of the largest one that torch gives.
    padding_tolerance: largest difference that padding makes, as such a share.
    round_trip: also save the parameters and read them back, bit for bit.
  """

  seed: int = 0
  model: str
  rows: int = 8
  length: int = 128
  tolerance: float = 5e-5
  padding_tolerance: float = 5e-5
  round_trip: bool = True

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(2, rows=self.rows, length=self.length)
    checks.above(
      0, tolerance=self.tolerance, padding_tolerance=self.padding_tolerance
    )


class Reference:
  """The same folder in torch."""

  def __init__(self, folder: str, config: DecoderConfig) -> None:
    """Loads it.

    Raises:
      RuntimeError: torch is not installed.
    """
    try:
      import torch
    except ImportError as error:
      raise RuntimeError(
        "verify compares with torch, which is not installed: pip install "
        "'jaxalign[parity]'"
      ) from error
    self._torch = torch
    language = config.num_outputs is None
    kind = (
      transformers.AutoModelForCausalLM
      if language
      else transformers.AutoModelForSequenceClassification
    )
    self._model = kind.from_pretrained(
      folder, dtype=torch.float32, local_files_only=True
    ).eval()
    self._pad = config.pad_id

  def outputs(
    self, ids: np.ndarray, mask: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Logits [B, T, V] or scores [B, H], and last hidden states [B, T, D].

    Rows go one by one without their padding: what torch computes of a sequence
    alone is what every layout must give.
    """
    logits, states = [], []
    for row, where in zip(ids, mask, strict=True):
      alone = self._torch.tensor(row[where][None]).long()
      with self._torch.no_grad():
        out = self._model(input_ids=alone, output_hidden_states=True)
      logits.append(out.logits[0].numpy())
      states.append(out.hidden_states[-1][0].numpy())
    return np.concatenate(logits), np.concatenate(states)


def compare(config: Config, folder: str) -> list[parity.Check]:
  """All checks of a folder.

  Args:
    config: the resolved config.
    folder: `config.model` with its variables expanded.

  Returns:
    The checks, passed or not.

  Raises:
    ValueError: the folder cannot be read at all, by file and field.
    RuntimeError: torch is not installed.
  """
  network = weights.load_config(folder)
  params = weights.load_params(folder, network)
  reference = Reference(folder, network)
  model = heads.model_of(network)
  apply = jax.jit(model.apply)
  length = min(config.length, network.max_positions)
  made = parity.layouts(network, config.rows, length, config.seed)
  language = network.num_outputs is None
  name = "logits" if language else "scores"

  def ours(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `Reference.outputs`, attended tokens only; features for states."""
    out = apply(params, ids, mask)
    if language:
      return np.asarray(out.logits)[mask], np.asarray(out.hidden)[mask]
    return np.asarray(out.rewards).reshape(-1), np.asarray(out.features)

  theirs, states = reference.outputs(*made["right"])
  ids, mask = made["right"]
  got, features = ours(ids, mask)
  if not language:
    states = states[np.cumsum(mask.sum(-1)) - 1]
  checks = [
    parity.Check(name, parity.relative_gap(got, theirs), config.tolerance),
    parity.Check(
      "hidden states",
      parity.relative_gap(features, states),
      config.tolerance,
    ),
  ]
  for layout in (layout for layout in made if layout != "right"):
    gap = parity.relative_gap(ours(*made[layout])[0], got)
    checks.append(
      parity.Check(f"padding: {layout}", gap, config.padding_tolerance)
    )
  alone = [ours(ids[i : i + 1], mask[i : i + 1])[0] for i in range(len(ids))]
  checks.append(
    parity.Check(
      "batch mates",
      parity.relative_gap(np.concatenate(alone), got),
      config.tolerance,
    )
  )
  if config.round_trip:
    checks.append(parity.Check("round trip", _round_trip(params, network), 0.0))
  return checks + _tokenizer_checks(folder, network, reference, ours, config)


def _round_trip(params: Any, network: DecoderConfig) -> float:
  """Largest change of a parameter that is saved and read back."""
  if network.pad_id is None:
    # A reward model is not saved without one; it is no parameter.
    network = dataclasses.replace(network, pad_id=0)
  with tempfile.TemporaryDirectory() as folder:
    weights.save_own(folder, params, network)
    again = weights.load_params(folder, weights.load_config(folder))
  gaps = jax.tree.map(
    lambda a, b: parity.largest_gap(np.asarray(a), np.asarray(b)),
    params,
    again,
  )
  return max(jax.tree.leaves(gaps))


def _tokenizer_checks(
  folder: str,
  network: DecoderConfig,
  reference: Reference,
  ours: Any,
  config: Config,
) -> list[parity.Check]:
  """Texts through both tokenizers; no check where the folder has none."""
  if not any(
    (epath.Path(folder) / name).exists()
    for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
  ):
    log.warning("%s: no tokenizer, so none is compared", folder)
    return []
  mine = tokenizer_files.load_tokenizer(folder)
  auto = transformers.AutoTokenizer.from_pretrained(
    folder, local_files_only=True
  )
  plain = [auto(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
  same = [
    mine.encode(text) == ids for text, ids in zip(TEXTS, plain, strict=True)
  ]
  checks = [
    parity.Check("tokenizer: texts that differ", float(same.count(False)), 0.0),
    parity.Check(
      "tokenizer: ids beyond the embedding",
      float(sum(i >= network.vocab_size for ids in plain for i in ids)),
      0.0,
    ),
  ]
  readable = [ids[: network.max_positions] for ids in plain if ids]
  if checks[1].passed and readable:
    width = max(map(len, readable))
    line = np.zeros((len(readable), width), np.int32)
    mask = np.zeros(line.shape, bool)
    for row, ids in enumerate(readable):
      line[row, : len(ids)], mask[row, : len(ids)] = ids, True
    if network.pad_id is None or not np.any(line[mask] == network.pad_id):
      theirs, _ = reference.outputs(line, mask)
      gap = parity.relative_gap(ours(line, mask)[0], theirs)
      checks.append(parity.Check("texts", gap, config.tolerance))
  return checks


def show(folder: str, checks: list[parity.Check]) -> None:
  """Prints the checks as a table."""
  rows = table.Table(title=folder)
  for column in ("check", "measured", "at most", ""):
    rows.add_column(
      column, justify="left" if column in ("check", "") else "right"
    )
  for check in checks:
    verdict = "pass" if check.passed else "FAIL"
    rows.add_row(
      check.name, f"{check.measured:.2g}", f"{check.limit:.2g}", verdict
    )
  console.Console().print(rows)


def run(config: Config, workdir: epath.Path) -> None:
  """Writes verify.json and ends with exit status 1 unless all checks pass.

  Args:
    config: the resolved config.
    workdir: gets verify.json.
  """
  folder = filesystem.resolved(config.model)
  checks = compare(config, folder)
  passed = all(check.passed for check in checks)
  configuration.write_json(
    workdir / "verify.json",
    {
      "model": config.model,
      "passed": passed,
      "checks": [
        check._asdict() | {"passed": check.passed} for check in checks
      ],
    },
  )
  show(folder, checks)
  summary.say(
    [f"{sum(c.passed for c in checks)} of {len(checks)} checks passed"],
    checks=workdir / "verify.json",
  )
  if not passed:
    sys.exit(1)


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
