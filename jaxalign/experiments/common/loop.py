"""The loop of every stage that learns from batches: one, for all of them."""

import hashlib
import logging
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import train_state
from jaxalign.data.batching import ensemble_loader, loader
from jaxalign.experiments.common import resume
from jaxalign.experiments.common import stage as training
from jaxalign.runtime.distributed import multihost, preemption
from jaxalign.runtime.io import checkpoint, metric_writer, step_guard

log = logging.getLogger("jaxalign")

T = TypeVar("T")

PROFILE_AFTER, PROFILE_STEPS = 10, 5

Measure = Callable[[Any], dict[str, float]]
Revise = Callable[
  [int, train_state.TrainState], tuple[train_state.TrainState, dict[str, float]]
]


class Fitted(NamedTuple):
  """What training leaves.

  Attributes:
    state: after the last step.
    params: of the whole network; those that `measure` saw last where it was
      called after the last step.
  """

  state: train_state.TrainState
  params: Any


def remembering(function: Callable[[Any], T]) -> Callable[[Any], T]:
  """A function of parameters that knows its last value.

  Args:
    function: of a tree of arrays, such as a pass over held-out rows. The arrays
      themselves are not kept alive.

  Returns:
    The function, which is not called again for the same arrays.
  """
  seen: list[tuple[list[weakref.ref[Any]], T]] = []

  def remembered(params: Any) -> T:
    leaves = jax.tree.leaves(params)
    # All of them: some may be frozen, and the same after each step.
    if not seen or any(
      known() is not leaf
      for known, leaf in zip(seen[0][0], leaves, strict=True)
    ):
      seen[:] = [([*map(weakref.ref, leaves)], function(params))]
    return seen[0][1]

  return remembered


def fingerprint(source: loader.Batches) -> bytes:
  """A digest of what decides the order of rows: the same on all processes.

  Args:
    source: batches; the number of the process does not enter, nor do names of
      sources, nor the tokens, but for how many there are.

  Returns:
    32 bytes.
  """
  digest = hashlib.sha256()
  given = (
    source.batch_size,
    source.buckets,
    source.pad_id,
    source.seed,
    source.shuffle,
    source.mixing,
    len(source),
  )
  digest.update(repr(given).encode())
  for array in (source.dataset.widths, source.dataset.source):
    digest.update(np.ascontiguousarray(array, np.int64).tobytes())
  return digest.digest()


def check_hosts(
  source: loader.Batches | ensemble_loader.MemberBatches, start: int
) -> None:
  """Refuses processes that see other data, or whose rows overlap.

  Args:
    source: batches, of which those of `start` are held.
    start: the first step.

  Raises:
    ValueError: on every process, with the processes that differ or the row.
  """
  for one in source.members:
    multihost.check_same("the training data", fingerprint(one))
    multihost.check_shares(one[start]["row"], one.batch_size)
    if one.mixing != "stratified":  # which shows a row of a small source again
      multihost.check_disjoint(
        "the training data", one.shown(start // len(one))
      )


def check_rows(
  source: loader.Batches | ensemble_loader.MemberBatches,
  workdir: epath.Path,
  start: int,
) -> None:
  """Refuses to go on with other training data than the run began with.

  Args:
    source: batches.
    workdir: of the run.
    start: steps done.

  Raises:
    ValueError: on every process, with the step.
  """
  digest = hashlib.sha256(b"".join(map(fingerprint, source.members)))
  resume.same_rows(
    workdir, digest.hexdigest(), start=start, main=multihost.is_main()
  )


def fit(
  stage: training.Stage,
  source: loader.Batches | ensemble_loader.MemberBatches,
  schedule: training.Schedule,
  saved: checkpoint.Checkpoints,
  workdir: epath.Path,
  *,
  seed: int,
  prefetch: int,
  measure: Measure | None = None,
  revise: Revise | None = None,
  profile: bool = False,
) -> Fitted:
  """Trains from the last checkpoint, or from the start, to the last step.

  Args:
    stage: the built step.
    source: batches as a function of the step.
    schedule: how long, and how often what is done.
    saved: where checkpoints go and come from.
    workdir: gets metrics.jsonl, speed.jsonl and, on request, profile/.
    seed: of the parameters and of dropout.
    prefetch: batches made ahead of the step.
    measure: `params -> scores` on held-out rows, or None.
    revise: `(step, state) -> (state, scalars)` after each step and before its
      checkpoint, for what a step's program cannot do, such as a pass over all
      data; the same state where nothing is due. None for nothing.
    profile: whether to write a trace of a few steps.

  Returns:
    The state after the last step, and the network's parameters.

  Raises:
    preemption.Preempted: this run is to make room; the last step is saved.
  """
  init_key, step_key = jax.random.split(jax.random.key(seed))
  start = saved.latest() or 0
  check_rows(source, workdir, start)
  fresh = start < schedule.num_steps and not stage.traces.count
  if fresh and jax.process_count() == 1:  # batches are held by their readers
    stage = stage.compiling(source[start])
  state = (
    training.restore(stage, saved, start, seed)
    if start
    else stage.init(init_key)
  )
  log.info("starting at step %d of %d", start, schedule.num_steps)
  stream = loader.batch_iterator(
    source,
    start_step=start,
    num_steps=schedule.num_steps - start,
    prefetch=prefetch,
  )
  rows = stage.batch["where"].sharding
  if jax.process_count() > 1 and start < schedule.num_steps:
    check_hosts(source, start)
  params = None
  guard = step_guard.StepGuard(schedule.max_bad_steps)
  profiler = step_guard.Profiler(
    workdir / "profile" if profile else None,
    max(1, min(PROFILE_AFTER, schedule.num_steps - start - PROFILE_STEPS + 1))
    + start,
    PROFILE_STEPS,
  )
  with (
    preemption.Preemption() as preempted,
    metric_writer.MetricWriter(
      workdir,
      start_step=start,
      num_steps=schedule.num_steps,
      is_main=multihost.is_main(),
      trackers=schedule.trackers,
    ) as report,
  ):
    for step, batch in enumerate(stream, start + 1):
      profiler.before(step)
      with jax.profiler.StepTraceAnnotation("train", step_num=step):
        state, metrics = stage.step(
          state, multihost.global_batch(batch, rows), step_key
        )
      profiler.after(step, state)
      if revise is not None:
        state, scalars = revise(step, state)
        metrics = metrics | scalars
      previous = guard.exchange(step, metrics, batch["index"])
      if previous is not None:
        report.write(*previous)
        report.advance(
          step,
          tokens=int(batch["mask"].sum()) * jax.process_count(),
          loss=previous[1]["train/loss"],
        )
      last, leaving = step == schedule.num_steps, preempted.due(step)
      score_due = last or training.every(step, schedule.eval_every)
      save_due = last or training.every(step, schedule.checkpoint_every)
      save_due = save_due or leaving
      if not score_due and not save_due:
        continue
      # What a checkpoint's step has measured is on disk before the checkpoint.
      report.write(*guard.flush())
      scores = None
      if score_due and measure is not None:
        params = stage.whole(state)
        scores = measure(params)
        report.write(step, scores)
      report.write_speed(step, report.speed())
      report.flush()
      if save_due:
        saved.save(step, state._replace(frozen=()), scores)
      if leaving:
        preempted.leave(step)
      if not last:
        params = None  # which a step may overwrite, or need the memory of
  profiler.close()
  log.debug("programs compiled of the step: %d", stage.traces.count)
  return Fitted(state, stage.whole(state) if params is None else params)
