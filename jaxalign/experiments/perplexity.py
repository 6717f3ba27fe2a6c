r"""Perplexity of language models on texts, and of answers under a model.

python -m jaxalign.experiments.perplexity --config=configs/perplexity.py \
    --config.models="('runs/sft_crowd/model', 'runs/policy/model')" \
    --config.data.eval_files="('test.jsonl',)" --workdir=runs/perplexity
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxalign import metrics
from jaxalign.data.batching import pair_dataset
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import encoding
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.policy import pair_likelihood
from jaxalign.experiments.reports import perplexity
from jaxalign.experiments.reward_model import pair_scores, scoring
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import weights
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import filesystem
from jaxalign.runtime.reward_sources import model as model_rewards


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `perplexity` reads.

  Attributes:
    seed: of resampling.
    models: folders of language models, each with its tokenizer; the others are
      compared with the first.
    dtype: compute type, "float32" or "bfloat16".
    data: of each record of `eval_files` the first response is read behind its
      prompt, so the preferred one of a pair; `train_files` are not read.
    batch_size: texts per forward over all devices.
    num_samples: resamples of people, or of texts.
    mesh: devices.
  """

  seed: int = 0
  models: tuple[str, ...]
  dtype: str = "float32"
  data: preferences.DataConfig
  batch_size: int = 64
  num_samples: int = 1000
  mesh: meshes.MeshConfig = meshes.MeshConfig()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(1, batch_size=self.batch_size)
    checks.at_least(2, num_samples=self.num_samples)
    if not self.models:
      raise ValueError("models must name one folder or more, got none")


def likelihood_of(
  config: Config, name: str, records: Sequence[Record], mesh: jax.sharding.Mesh
) -> tuple[np.ndarray, np.ndarray]:
  """What each answer costs a model.

  Args:
    config: lengths and batches.
    name: of the model.
    records: N of them.
    mesh: devices.

  Returns:
    Nats of each answer, with its end where the tokenizer has one, and how many
    tokens that is, float64 [N] each.
  """
  path = filesystem.resolved(name)
  network = _network(config, path)
  buckets = model_rewards.fitting_buckets(
    config.data.buckets, network.max_positions, path
  )
  data = dataclasses.replace(
    config.data,
    buckets=buckets,
    max_length=min(config.data.max_length, max(buckets)),
  )
  tokenizer = preferences.open_tokenizer(data, path)
  stage = pair_likelihood.build(
    network,
    mesh,
    config.mesh.rules,
    config.batch_size,
    max(data.buckets),
    lambda log_probs, batch: log_probs,
  )
  pairs = pair_likelihood.with_reference(_alone(data, records, tokenizer))
  found = scoring.rewards_of(
    stage,
    scoring.load_params(stage, path),
    pairs,
    data,
    tokenizer,
    num_responses=1,
  )
  lengths = pairs.dataset.lengths - pairs.dataset.prompt_lengths
  return -found[:, 0, 0].astype(np.float64), lengths[:, 0].astype(np.float64)


def _network(config: Config, folder: Any) -> DecoderConfig:
  network = dataclasses.replace(weights.load_config(folder), dtype=config.dtype)
  if network.num_outputs is not None:
    raise ValueError(f"{folder} holds a reward model, not a language model")
  return network


def _alone(
  data: preferences.DataConfig, records: Sequence[Record], tokenizer: Tokenizer
) -> preferences.Pairs:
  """Each answer beside itself, tokenised as a policy would write it."""
  twice = [
    Record(r.prompt, (r.responses[0],) * 2, id=r.id, where=r.where)
    for r in records
  ]
  dataset = pair_dataset.encode_pairs(
    twice, tokenizer, max_length=data.max_length, tokenise=encoding.answered
  )
  return preferences.Pairs(twice, dataset, dataset.counts)


def summarise(
  nats: np.ndarray,
  tokens: np.ndarray,
  first: tuple[np.ndarray, np.ndarray],
  people: np.ndarray | None,
  config: Config,
) -> dict[str, Any]:
  """Perplexity of one model on some texts.

    exp(Σ nats / Σ tokens), and exp(nats / tokens) of each text

  Args:
    nats: of each text, [N].
    tokens: of each, [N].
    first: nats and tokens under the first model, [N] each.
    people: of `pair_scores.clusters_of`, [N]; None for intervals over texts.
    config: seed and resamples.

  Returns:
    `texts`, `tokens`; `value` over all tokens with its 95 % interval `low`,
    `high`; `mean` and `median` over texts; and `ratio`, that of `value` to the
    first model's with `ratio_low`, `ratio_high`, from the same resamples.
  """
  sums = np.stack([nats, tokens, *first], axis=1)
  # In units near 1, as the totals are added up in float32.
  low = high = np.full(2, np.nan)
  cluster = np.arange(len(nats)) if people is None else people
  names, cluster = np.unique(cluster, return_inverse=True)
  if len(names) > 1:
    interval = metrics.clustered_interval(
      lambda total: jnp.stack(
        [
          total[0] / total[1],
          total[0] / total[1] - total[2] / total[3],
        ]
      ),
      jnp.asarray(sums, jnp.float32),
      cluster=jnp.asarray(cluster, jnp.int32),
      num_clusters=len(names),
      key=jax.random.key(config.seed),
      num_samples=config.num_samples,
    )
    low, high = np.exp(interval.low), np.exp(interval.high)
  totals = sums.sum(axis=0)
  each = np.exp(nats / tokens)
  of_first = totals[2] / totals[3]
  bound = lambda end: None if math.isnan(end) else float(end)
  return {
    "texts": len(nats),
    "tokens": int(totals[1]),
    "value": float(np.exp(totals[0] / totals[1])),
    "low": bound(low[0]),
    "high": bound(high[0]),
    "mean": float(each.mean()),
    "median": float(np.median(each)),
    "ratio": float(np.exp(totals[0] / totals[1] - of_first)),
    "ratio_low": bound(low[1]),
    "ratio_high": bound(high[1]),
  }


def run(config: Config, workdir: epath.Path) -> None:
  """Writes eval.json and report.html.

  Args:
    config: the resolved config.
    workdir: gets both files.

  Raises:
    ValueError: a folder holds no language model, or no text is left.
  """
  mesh = meshes.make_mesh(config.mesh)
  records = preferences.load_records(config.data, config.data.eval_files)
  if not records:
    raise ValueError(f"{config.data.eval_files} hold no record")
  people = pair_scores.clusters_of(pair_scores.annotators(records))
  subsets = _subsets(records)
  found = {
    name: likelihood_of(config, name, records, mesh) for name in config.models
  }
  base = found[config.models[0]]
  result: dict[str, Any] = {
    "intervals_over": "texts" if people is None else "people",
    "models": {
      name: {
        subset: summarise(
          nats[rows],
          tokens[rows],
          (base[0][rows], base[1][rows]),
          None if people is None else people[rows],
          config,
        )
        for subset, rows in subsets.items()
      }
      for name, (nats, tokens) in found.items()
    },
  }
  if multihost.is_main():
    configuration.write_json(workdir / "eval.json", result)
    perplexity.write(workdir, result)
  summary.say([perplexity.headline(result)], report=workdir / "report.html")


def _subsets(records: Sequence[Record]) -> Mapping[str, np.ndarray]:
  """Row numbers of all, and of each source where there are several."""
  named = [str(record.source) for record in records]
  sources = sorted({*named})
  found = {"all": np.arange(len(records))}
  if len(sources) > 1:
    rows = np.array(named)
    found |= {name: np.flatnonzero(rows == name) for name in sources}
  return found


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
