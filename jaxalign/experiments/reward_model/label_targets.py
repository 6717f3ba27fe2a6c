"""DPRM's recipe: from votes on labels to the shares that a model is taught."""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Iterable

import numpy as np

from jaxalign import losses
from jaxalign.algorithms import bradley_terry, dprm
from jaxalign.data.batching import loader
from jaxalign.data.records import unpaired
from jaxalign.data.records.chat import text_of
from jaxalign.data.records.record import Record
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.reward_model import recipe as recipe_object

log = logging.getLogger("jaxalign")

COLUMNS = ("label_votes", "labels", "label_prior")


def make(
  config: dprm.DprmConfig,
  loss: bradley_terry.PairLossConfig,
  coupling: recipe_object.Coupling | None,
) -> recipe_object.Recipe:
  """A distribution over labels per response.

  Args:
    config: the `recipe` section.
    loss: the `loss` section, which must be left as it is.
    coupling: how rows are weighed, None for their mean.

  Returns:
    The recipe.
  """
  recipe_object.refuse_other_losses(config.name, loss)
  names = config.labels.names
  cost = np.asarray(config.labels.label_set().cost, np.float64)

  def batch_shapes(batch_size: int, length: int) -> dict[str, loader.ArraySpec]:
    pairs = loader.pair_shapes(batch_size, length)
    return pairs | loader.label_shapes(batch_size, len(names))

  return recipe_object.Recipe(
    recipe_object.coupled(lambda: dprm.label_rows(config), coupling),
    outputs=names,
    readout=config.readout(),
    label_cost=tuple(tuple(row.tolist()) for row in cost),
    batch_shapes=batch_shapes,
    change=unpaired.TwinStream,  # a response may stand alone
    prepare_pairs=functools.partial(with_targets, config),
  )


def with_targets(
  recipe: dprm.DprmConfig,
  data: preferences.DataConfig,
  pairs: preferences.Pairs,
) -> tuple[preferences.Pairs, None]:
  """The pairs with the label shares of every response that has any.

  Pseudo-counts are kappa · prior and the votes on a response, kappa being
  `recipe.prior_strength`. The prior is the
  record's `label_prior`; a record without votes is itself worth kappa, so that
  its `labels` stand until votes come; else it is `recipe.prior`. Each source of
  `recipe.new_votes` then multiplies all pseudo-counts by `recipe.decay` and
  adds its `label_votes`, by the texts of prompt and response. No old vote is
  asked for again.

  Args:
    recipe: label set, prior, decay and smoothing.
    data: how new votes are read.
    pairs: to be trained on.

  Returns:
    The pairs, with the number of responses without labels in the report, and
    None: all are learned from.

  Raises:
    ValueError: no response has labels, or labels are not over the label set.
  """
  size = len(recipe.labels.names)
  counts, prior, labelled = _pseudo_counts(recipe, pairs)
  for source in recipe.new_votes:
    votes, known = _later_votes(data, source, pairs.records, counts.shape)
    counts = np.asarray(losses.add_votes(counts, votes, decay=recipe.decay))
    labelled |= known
  if not labelled.any():
    raise ValueError(
      f"recipe {recipe.name!r} learns from label distributions: records need "
      f"`labels` or `label_votes` over {size} labels, got "
      f"{len(pairs.dataset)} pairs without; the personas stage makes them"
    )
  utilities, cost = recipe.labels.label_set()
  del utilities
  shares = losses.label_posterior(prior, counts, prior_strength=0.0)
  if recipe.smoothing_kind == "uniform":
    shares = losses.uniform_label_smoothing(shares, epsilon=recipe.smoothing)
  else:
    shares = losses.targeted_label_smoothing(
      shares, epsilon=recipe.smoothing, prior=prior, cost=cost
    )
  lost = int(labelled.size - labelled.sum())
  if lost:
    log.info("%d of %d responses have no labels", lost, labelled.size)
  dataset = dataclasses.replace(
    pairs.dataset, labels=np.array(shares), labelled=labelled
  )
  report = {**pairs.report, "unlabelled_responses": lost}
  return preferences.Pairs(pairs.records, dataset, report), None


def _pseudo_counts(
  recipe: dprm.DprmConfig, pairs: preferences.Pairs
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Pseudo-counts and prior, float32 [N, 2, d], and who is labelled [N, 2]."""
  size = len(recipe.labels.names)
  counts = np.zeros((len(pairs.dataset), 2, size), np.float32)
  prior = np.full_like(counts, 1 / size)
  if recipe.prior is not None:
    prior[:] = recipe.prior
  labelled = np.zeros(counts.shape[:2], bool)
  weightless = 0
  for row, record in enumerate(pairs.records):
    check_size(record, size)
    votes, shares = record.label_votes, record.labels
    before = record.label_prior
    weightless += before is not None and votes is not None
    if votes is None and shares is not None:
      before = shares
    for side in range(2):
      if before is not None and side < len(before):
        prior[row, side] = before[side]
      if votes is not None and side < len(votes):
        counts[row, side] = votes[side]
      labelled[row, side] = side < len(votes or shares or ())
  if weightless and not recipe.prior_strength:
    log.warning(
      "label_prior of %d record(s) weighs nothing beside votes, as "
      "recipe.prior_strength is 0; set it to the votes that it is worth",
      weightless,
    )
  return counts + recipe.prior_strength * prior, prior, labelled


def check_size(record: Record, size: int) -> None:
  """Raises ValueError unless a record's labels are over `size` classes."""
  for name in COLUMNS:
    rows = record.__getattribute__(name)
    if rows is not None and len(rows[0]) != size:
      raise ValueError(
        f"{record.place()}: {name} must be over the {size} labels of the "
        f"recipe, got {len(rows[0])}"
      )


def _later_votes(
  data: preferences.DataConfig,
  source: str,
  records: Iterable[Record],
  shape: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
  """Votes of one source on these responses, and where there are any."""
  found: dict[tuple[str, str], tuple[int, ...]] = {}
  for record in preferences.load_records(data, (source,)):
    check_size(record, shape[-1])
    # A response that is in several pairs was voted on once.
    for text, row in zip(
      record.responses, record.label_votes or (), strict=False
    ):
      found.setdefault((text_of(record.prompt), text_of(text)), row)
  if not found:
    raise ValueError(f"recipe.new_votes: {source} has no label_votes")
  votes = np.zeros(shape, np.float32)
  known = np.zeros(shape[:2], bool)
  for row, record in enumerate(records):
    for side, text in enumerate(itertools.islice(record.responses, 2)):
      given = found.get((text_of(record.prompt), text_of(text)))
      if given is not None:
        votes[row, side], known[row, side] = given, True
  log.info("%s: new votes on %d responses", source, known.sum())
  return votes, known
