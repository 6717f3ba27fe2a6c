"""What training does to features: their first two principal axes, twice."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import bradley_terry
from jaxalign.data.batching import loader
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import config
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import scoring
from jaxalign.models import activations, heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import progress_bar
from jaxalign.runtime.plots import figures, html_report

START = "features_start.json"
NUM_PAIRS = 500


class Plane(NamedTuple):
  """Features on their two axes of largest variance.

  Attributes:
    points: float32 [N, 2, 2], chosen first, then the coordinates.
    shares: part of the variance on each axis, [2].
  """

  points: np.ndarray
  shares: np.ndarray


def principal_plane(features: np.ndarray) -> Plane:
  """The plane through the mean that holds most of the variance.

  Args:
    features: float [N, 2, D] with N >= 1 and D >= 2.

  Returns:
    The plane; the larger entry of each axis by magnitude is positive, so that
    equal features give equal pictures.
  """
  rows = features.reshape(-1, features.shape[-1]).astype(np.float64)
  rows = rows - rows.mean(axis=0)
  _, sizes, axes = np.linalg.svd(rows, full_matrices=False)
  axes = axes[:2]
  largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], axis=1)
  points = rows @ (axes * np.sign(largest)).T
  total = max(float((sizes**2).sum()), 1e-300)
  return Plane(
    points.reshape(*features.shape[:2], 2).astype(np.float32),
    sizes[:2] ** 2 / total,
  )


def measure(
  scorer: scoring.Stage,
  params: Any,
  pairs: preferences.Pairs,
  data: preferences.DataConfig,
  tokenizer: Tokenizer,
  mesh: jax.sharding.Mesh,
  rules: tuple[tuple[str, str | None], ...],
) -> Plane:
  """The plane of the first `NUM_PAIRS` pairs, without dropout.

  Args:
    scorer: of the same network, for the layout of parameters and rows.
    params: of the network.
    pairs: held-out pairs.
    data: buckets.
    tokenizer: for the padding id.
    mesh: devices.
    rules: overrides of the logical table.

  Returns:
    The plane, the same on every host.
  """
  forward = bradley_terry.response_forward(
    heads.reward_model(scorer.network).apply, dropout=False
  )
  shardings = jax.tree.map(lambda leaf: leaf.sharding, scorer.state)
  step = jax.jit(
    activations.laid_out(
      lambda params, batch: (forward(params, batch)[1], batch["where"]),
      mesh,
      meshes.logical_table(rules),
    ),
    in_shardings=(shardings, meshes.batch_sharding(mesh)),
    out_shardings=meshes.replicated(mesh),
  )
  few = preferences.first(data, pairs, NUM_PAIRS, tokenizer)
  source = preferences.make_batches(
    data, few, tokenizer, len(scorer.batch["where"]), seed=0, shuffle=False
  )
  found = []
  stream = loader.batch_iterator(
    source, start_step=0, num_steps=len(source), prefetch=0
  )
  for batch in progress_bar.watched(
    stream, total=len(source), what="reading features"
  ):
    features, where = multihost.fetch(
      step(
        params, multihost.global_batch(batch, scorer.batch["where"].sharding)
      )
    )
    found.append(features[where])
  return principal_plane(np.concatenate(found))


def keep_start(
  workdir: epath.Path,
  stage: training.Stage,
  seed: int,
  measured: Callable[[Any], Plane],
  *,
  begun: bool,
) -> None:
  """Measures the plane before the first step, unless the run has it already.

  Args:
    workdir: of the run.
    stage: the built step.
    seed: of the parameters.
    measured: `params -> plane`, from `measure`.
    begun: whether the run goes on; what an attempt without a checkpoint has
      left may be of another config.
  """
  if begun and (workdir / START).exists():
    return
  init_key, _ = jax.random.split(jax.random.key(seed))
  plane = measured(stage.whole(stage.init(init_key)))
  if multihost.is_main():
    content = {name: part.tolist() for name, part in plane._asdict().items()}
    config.write_json(workdir / START, content)


def section(workdir: epath.Path, after: Plane) -> html_report.Figure:
  """The picture before and after training.

  Args:
    workdir: holds what `save_start` wrote.
    after: the plane of the trained model.

  Returns:
    A section of the report.
  """
  saved = json.loads((workdir / START).read_text())
  before = Plane(np.array(saved["points"]), np.array(saved["shares"]))
  return html_report.Figure(
    "Features before and after training",
    figures.feature_planes({"before": before, "after": after}),
    "What the reward head reads of held-out responses, on the two axes of "
    "largest variance. Axes are chosen for each panel anew and differ in "
    "scale; stars are means.",
  )
