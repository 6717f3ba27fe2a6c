r"""Best-of-n sampling: the best answer of each prompt as a record for SFT.

python -m jaxalign.experiments.best_of_n --config=configs/best_of_n.py \
    --config.policy=runs/sft_crowd/model --workdir=runs/best_of_n
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign import metrics
from jaxalign.data.records import refusals
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.policy import answers, candidates, reward_source
from jaxalign.experiments.reports import best_of_n
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.io import filesystem, progress_bar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `best_of_n` reads.

  Attributes:
    seed: of the samples and of resampling.
    data: prompts.
    policy: a language model's folder that answers; None takes the responses
      that the records hold.
    num_samples: answers per prompt; MORE draws 4.
    sampling: how they are drawn.
    source: the proxy, by which the best is picked.
    pick_by: "mean" or "min" over the proxy's outputs, or the name of one.
    oracle: what the picked answers are truly worth; None has the records'
      `ratings` say it if they are there, else none.
    chunk: prompts between two writes to the disk.
    num_resamples: of the bootstrap over prompts.
    mesh: devices of the sources' models.
  """

  seed: int = 0
  data: candidates.PromptsConfig
  policy: str | None = None
  num_samples: int = 4
  sampling: answers.SamplingConfig
  source: reward_source.RewardSourceConfig
  pick_by: str = "mean"
  oracle: reward_source.RewardSourceConfig | None = None
  chunk: int = 64
  num_resamples: int = 1000
  mesh: meshes.MeshConfig = meshes.MeshConfig()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(1, num_samples=self.num_samples, chunk=self.chunk)
    checks.at_least(2, num_resamples=self.num_resamples)


def picked_by(
  proxy: np.ndarray, names: Sequence[str], pick_by: str
) -> np.ndarray:
  """The proxy: one number per answer, by which the best is picked.

  Args:
    proxy: rewards, [..., K].
    names: of the K outputs.
    pick_by: "mean", "min" or one of the names.

  Returns:
    [...].

  Raises:
    ValueError: `pick_by` is none of these.
  """
  if pick_by in names:
    return proxy[..., list(names).index(pick_by)]
  if pick_by == "mean":
    return proxy.mean(axis=-1)
  if pick_by == "min":
    return proxy.min(axis=-1)
  raise ValueError(
    f"pick_by must be mean, min or one of {', '.join(names)}, got {pick_by!r}"
  )


def best_record(
  scored: candidates.Scored, record: Record, order: np.ndarray
) -> Record:
  """The SFT record: the best answer first, then the others, unranked.

  Each answer is there once, and an empty one only as the best: a reader drops
  records with two that are the same, or with an empty one.
  """
  best, *others = (scored.responses[i] for i in order)
  kept = dict.fromkeys((best, *(text for text in others if text.strip())))
  return Record(
    prompt=record.prompt,
    responses=tuple(kept),
    num_ranked=1 if len(kept) > 1 else None,
    source=record.source,
    group=record.group,
    id=record.id,
  )


@functools.partial(jax.jit, static_argnames="num_resamples")
def _mean_and_interval(
  rows: jax.Array, key: jax.Array, num_resamples: int
) -> tuple[jax.Array, metrics.Interval]:
  """The mean over rows with its 95 % interval; one program per shape."""
  mean = lambda rows: rows.mean(axis=0)
  interval = metrics.bootstrap_interval(
    mean, rows, key=key, num_samples=num_resamples
  )
  return mean(rows), interval


def curves(
  proxy: np.ndarray,
  by: np.ndarray,
  oracle: np.ndarray,
  config: Config,
) -> dict[str, Any]:
  """Value of best-of-n for every n, with 95 % intervals.

  Args:
    proxy: [P, N, K].
    by: what the best is picked by, [P, N].
    oracle: [P, N, J].
    config: seed and resamples.

  Returns:
    `sizes` and `kl` [N]; `proxy`, `picked_by` and `oracle` with `value`, `low`
    and `high`, [N][K], [N][1] and [N][J].
  """
  sizes = tuple(range(1, by.shape[1] + 1))
  parts = {"proxy": proxy, "picked_by": by[..., None], "oracle": oracle}
  stacked = np.concatenate([*parts.values()], axis=-1).astype(np.float32)
  per_prompt = metrics.best_of_n_values(
    by.astype(np.float32), stacked, sizes=sizes
  )
  mean, (low, high) = _mean_and_interval(
    per_prompt, jax.random.key(config.seed), config.num_resamples
  )
  result: dict[str, Any] = {
    "sizes": list(sizes),
    "kl": np.asarray(metrics.best_of_n_kl(np.array(sizes))).tolist(),
  }
  at = 0
  for name, part in parts.items():
    columns = slice(at, at + part.shape[-1])
    at += part.shape[-1]
    result[name] = {
      key: np.asarray(values)[:, columns].tolist()
      for key, values in (
        ("value", mean),
        ("low", low),
        ("high", high),
      )
    }
  return result


def run(config: Config, workdir: epath.Path) -> None:
  """Writes best.jsonl for `sft`, eval.json and report.html.

  Answers and rewards are on the disk chunk by chunk, so a run that was killed
  or whose source gave up goes on where it stopped.

  Args:
    config: the resolved config.
    workdir: gets the files and samples.jsonl.

  Raises:
    ValueError: several processes, a bad record, or samples.jsonl of another
      config.
    RewardError: a source gave up.
  """
  if jax.process_count() > 1:
    raise ValueError(
      f"best_of_n runs in one process, got {jax.process_count()}"
    )
  check, num_responses = None, config.num_samples
  if config.policy is not None:
    tokenizer = tokenizer_files.load_tokenizer(
      filesystem.resolved(config.policy)
    )
    check, num_responses = refusals.refuses(tokenizer, least=0), 0
  records = candidates.load_prompts(
    config.data, num_responses=num_responses, check=check
  )
  mesh = meshes.make_mesh(config.mesh)
  opened = lambda section: reward_source.open_source(
    section, mesh, config.mesh.rules, crowd_seed=config.data.crowd_seed
  )
  source = opened(config.source)
  oracle = None if config.oracle is None else opened(config.oracle)
  picked_by(np.zeros((1, len(source.names))), source.names, config.pick_by)
  key = jax.random.key(config.seed)
  answerer = None
  if config.policy is not None:
    answerer = answers.Answerer(config.policy, config.sampling, key)
  rated = (
    candidates.rated_by(records) if oracle is None and answerer is None else ()
  )
  file = best_of_n.SampleFile(
    workdir / "samples.jsonl", dataclasses.asdict(config)
  )
  scored = [candidates.Scored(*row) for row in file.rows]
  starts = range(len(scored), len(records), config.chunk)
  for first in progress_bar.watched(
    starts, total=len(starts), what="answering and scoring"
  ):
    chunk = candidates.score_chunk(
      records[first : first + config.chunk],
      first,
      config.num_samples,
      answerer,
      source,
      oracle,
      rated,
      config.data.reward_columns,
    )
    file.append(chunk)
    scored += chunk
  proxy = np.array([row.proxy for row in scored])
  by = picked_by(proxy, source.names, config.pick_by)
  # Best first; of equals the last one, as the curves count them.
  order = np.argsort(by, axis=1, kind="stable")[:, ::-1]
  lines = [
    json.dumps(best_record(*row).to_row(), allow_nan=False)
    for row in zip(scored, records, order, strict=True)
  ]
  filesystem.write_atomically(
    workdir / "best.jsonl", "".join(f"{line}\n" for line in lines).encode()
  )
  result = curves(proxy, by, np.array([row.oracle for row in scored]), config)
  result["names"] = list(source.names)
  result["oracle_names"] = list(rated if oracle is None else oracle.names)
  configuration.write_json(workdir / "eval.json", result)
  best_of_n.write(workdir, result, len(records), config.pick_by)
  best = workdir / "best.jsonl"
  summary.say(
    [best_of_n.headline(result)],
    best=best,
    report=workdir / "report.html",
    then=summary.command(
      "sft", "sft_crowd", f"--config.data.train_files={(str(best),)}"
    ),
  )


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
