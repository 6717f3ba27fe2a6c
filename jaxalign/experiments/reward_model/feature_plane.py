"""Contrastive recipe, and what it does to features: two principal axes."""

import dataclasses
import functools
import json
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import bradley_terry, contrastive, update
from jaxalign.data.batching import loader
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import (
  pair_recipes,
  recipe,
  translated_views,
)
from jaxalign.models import activations, heads
from jaxalign.models.config import DecoderConfig
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import checkpoint, progress_bar
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


def measure(run: recipe.Run, params: Any) -> Plane:
  """The plane of the first `NUM_PAIRS` held-out pairs, without dropout.

  Args:
    run: with held-out pairs.
    params: of the network.

  Returns:
    The plane, the same on every host.
  """
  scorer, data, tokenizer, mesh = run.scorer, run.data, run.tokenizer, run.mesh
  forward = bradley_terry.response_forward(
    heads.reward_model(scorer.network).apply, dropout=False
  )
  shardings = jax.tree.map(lambda leaf: leaf.sharding, scorer.state)
  step = jax.jit(
    activations.laid_out(
      lambda params, batch: (forward(params, batch)[1], batch["where"]),
      mesh,
      meshes.logical_table(run.rules),
    ),
    in_shardings=(shardings, meshes.batch_sharding(mesh)),
    out_shardings=meshes.replicated(mesh),
  )
  few = preferences.first(data, run.held_out, NUM_PAIRS, tokenizer)
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


class Hooks(recipe.Hooks):
  """The plane of held-out pairs before and after training."""

  def before(
    self,
    source: loader.Batches,
    saved: checkpoint.Checkpoints,
    workdir: epath.Path,
  ) -> None:
    """Writes the plane before the first step, unless the run has it already.

    Args:
      source: batches.
      saved: checkpoints; what an attempt without one has left may be of another
        config.
      workdir: of the run.
    """
    del source
    begun = saved.latest() is not None
    if self.run.held_out is None or (begun and (workdir / START).exists()):
      return
    stage = self.run.stage
    init_key, _ = jax.random.split(jax.random.key(self.run.seed))
    plane = measure(self.run, stage.whole(stage.init(init_key)))
    if multihost.is_main():
      content = {name: part.tolist() for name, part in plane._asdict().items()}
      configuration.write_json(workdir / START, content)

  def report_sections(
    self, params: Any, workdir: epath.Path
  ) -> recipe.Sections:
    """The picture before and after training."""
    return [section(workdir, measure(self.run, params))]


def make(
  config: translated_views.ContrastiveRecipeConfig,
  loss: bradley_terry.PairLossConfig,
  coupling: None,
) -> recipe.Recipe:
  """Bradley-Terry on two views, with a contrastive loss between them.

  Args:
    config: the `recipe` section.
    loss: the `loss` section.
    coupling: None; the table refuses others.

  Returns:
    The recipe.
  """

  def objective(
    model: heads.Model, network: DecoderConfig, batch_size: int
  ) -> update.Objective:
    _check_tokens(config, network)
    return contrastive.contrastive(
      model.apply,
      config,
      loss,
      batch_size=batch_size,
      num_features=network.num_features,
      dropout=network.dropout > 0,
    )

  made = dataclasses.replace(
    pair_recipes.make(config, loss, coupling),
    objective=objective,
    passes={"tokens": ("forward_backward",) * contrastive.VIEWS},
    hooks=Hooks,
  )
  if config.translator is None:
    return made
  return dataclasses.replace(
    made,
    passes=dict.fromkeys(("tokens", "view_tokens"), ("forward_backward",)),
    batch_shapes=lambda batch_size, length: (
      loader.pair_shapes(batch_size, length)
      | loader.view_shapes(batch_size, length)
    ),
    add_views=functools.partial(translated_views.add_views, config.translator),
  )


def _check_tokens(
  config: contrastive.ContrastiveConfig, network: DecoderConfig
) -> None:
  """Raises ValueError where texts cannot be changed as the config asks."""
  if config.augmentation != "dropout" and network.num_texts is not None:
    raise ValueError(
      "recipe.augmentation changes tokens, and model.trainable='head' passes "
      f"each text once, got {config.augmentation!r}; train more than the head"
    )
  if config.mask_token is not None and config.mask_token >= network.vocab_size:
    raise ValueError(
      "recipe.mask_token must be below the vocabulary's size "
      f"{network.vocab_size}, got {config.mask_token}"
    )


def section(workdir: epath.Path, after: Plane) -> html_report.Figure:
  """The picture before and after training.

  Args:
    workdir: holds what `Hooks.before` wrote.
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
