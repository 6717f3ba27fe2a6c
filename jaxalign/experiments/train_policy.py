r"""Policy training by PPO, RLOO, GRPO or online DPO from any reward source.

python -m jaxalign.experiments.train_policy \
    --config=configs/policy_maxmin_crowd.py --workdir=runs/policy_maxmin_crowd
"""

import functools
import itertools
import logging
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign.algorithms import optimizer as optimizers
from jaxalign.algorithms import ppo, ppo_texts
from jaxalign.algorithms.ppo_batch import PolicyState
from jaxalign.data.batching import loader, prompt_dataset
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import cli, loop, model, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import prompts, section
from jaxalign.experiments.datasets import sft as sft_data
from jaxalign.experiments.datasets import warnings as data_warnings
from jaxalign.experiments.policy import config as policy_config
from jaxalign.experiments.policy import (
  evaluation,
  networks,
  reward_source,
  rollout,
)
from jaxalign.experiments.policy import sampling as policy_sampling
from jaxalign.experiments.policy import stage as policy_programs
from jaxalign.experiments.reports import policy
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost, preemption
from jaxalign.runtime.io import artifact, checkpoint, metric_writer, step_guard
from jaxalign.runtime.reward_sources import base

Config = policy_config.Config
log = logging.getLogger("jaxalign")


def build(
  config: Config, mesh: jax.sharding.Mesh
) -> policy_programs.PolicyStage:
  """The compiled part of the stage: nothing here touches a dataset.

  Args:
    config: the resolved config.
    mesh: devices, real or abstract.

  Returns:
    The stage's programs and abstract arguments.

  Raises:
    ValueError: prompts, model and mesh do not fit, before anything is compiled.
  """
  train, sampling = config.train, config.sampling
  minibatches = config.policy.minibatches
  shards = mesh.shape["data"] * mesh.shape["fsdp"]
  if train.num_prompts % (shards * minibatches * train.accumulation):
    raise ValueError(
      "train.num_prompts must be divisible by data x fsdp x minibatches x "
      f"accumulation, got {train.num_prompts} and {mesh.shape['data']} x "
      f"{mesh.shape['fsdp']} x {minibatches} x {train.accumulation}"
    )
  tokenizer = section.open_tokenizer(config.data, config.model.init_from)
  length = config.data.max_prompt_length
  text_length = None if config.texts is None else config.texts.length
  network = model.decoder_config(
    config.model,
    tokenizer,
    max_length=max(length + sampling.max_new_tokens, text_length or 0),
    num_outputs=None,
  )
  made = networks.make_networks(
    config.model,
    config.critic,
    network,
    tokenizer,
    temperature=sampling.temperature,
    max_new_tokens=sampling.max_new_tokens,
    entropy=config.policy.entropy_coef is not None,
    reference=config.reference,
    truncation=sampling.truncation,
  )
  per_iteration = config.policy.epochs * minibatches
  optimizer = lambda section, axes, iterations: optimizers.make_optimizer(
    section, num_steps=iterations * per_iteration, axes=axes
  )
  # The policy's schedule begins where the critic has warmed up.
  learning = train.num_iterations - config.critic.warmup_iterations
  chains = ppo.Optimizers(
    actor=optimizer(config.optimizer, made.axes, learning),
    critic=(
      None
      if config.critic_optimizer is None
      else optimizer(
        config.critic_optimizer, made.critic_axes, train.num_iterations
      )
    ),
  )
  eos_ids = policy_sampling.ends_of(sampling.end_ids, tokenizer, network)
  return policy_programs.make_stage(
    made,
    policy_sampling.make_sample(
      policy_sampling.make_sampler(
        network, sampling, eos_ids=eos_ids, pad_id=tokenizer.pad_id
      ),
      made.policy_of,
      num_responses=sampling.num_responses,
      eos_ids=eos_ids,
    ),
    config.learner,
    chains,
    (
      prompt_dataset.prompt_shapes(train.num_prompts, length),
      policy_sampling.rollout_shapes(
        train.num_prompts,
        length,
        sampling,
        len(config.source.names),
        config.critic.num_labels,
        text_length,
      ),
    ),
    mesh,
    config.mesh.rules,
    accumulation=train.accumulation,
    parallel=train.parallel,
  )


def run(config: Config, workdir: epath.Path) -> None:
  """Trains, resuming where `workdir` left off, and writes `model/`.

  Args:
    config: the resolved config.
    workdir: gets metrics.jsonl, speed.jsonl, checkpoints/, model/, report.html
      and, with `data.eval_files`, eval.json, answers.json with the answers to
      three held-out prompts, and metrics from iteration 0 on.
  """
  checkpoint.check_directory(workdir)
  mesh = meshes.make_mesh(config.mesh)
  stage = build(config, mesh)
  open_source = lambda section: reward_source.open_source(
    section, mesh, config.mesh.rules, crowd_seed=config.data.crowd_seed
  )
  source = open_source(config.source)
  tokenizer = section.open_tokenizer(config.data, config.model.init_from)
  noted = data_warnings.Cautions(tokenizer, rows="prompts", unit="prompt")
  load = functools.partial(
    prompts.load_prompts,
    config.data,
    tokenizer=tokenizer,
    group_names=config.source.names,
    noted=noted,
  )
  dataset = load(config.data.train_files)
  keys = dict(
    zip(
      ("init", "sample", "learn", "eval"),
      jax.random.split(jax.random.key(config.seed), 4),
      strict=True,
    )
  )
  held_out, judge = None, None
  if config.data.eval_files:
    held_out = load(
      config.data.eval_files, limit=config.train.eval_prompts, held_out=True
    )
    judge = None if config.judge is None else open_source(config.judge)
  warnings = noted.found(holds_out=bool(config.data.eval_files))
  with checkpoint.Checkpoints(
    workdir / "checkpoints",
    keep_last=config.train.keep_last,
    keep_best=0,
    best_metric="eval/worst_utility",
    digests=config.train.digests,
  ) as saved:
    if (saved.latest() or 0) < config.train.num_iterations:
      stage = stage.compiling()
    frozen = stage.init_frozen(keys["init"])
    measure = None
    if held_out is not None:
      measure = evaluation.make_measure(
        config,
        stage,
        held_out,
        tokenizer,
        source,
        judge,
        frozen,
        keys["eval"],
        workdir,
      )
    state, scores = _train(
      config,
      stage,
      dataset,
      tokenizer,
      source,
      frozen,
      keys,
      measure,
      saved,
      workdir,
    )
  description = artifact.Description(
    kind="policy",
    heads=(),
    max_length=config.data.max_prompt_length + config.sampling.max_new_tokens,
    calibration=None,
    utilities=None,
    mixture_weights=None,
    provenance=artifact.provenance(config, config.train.num_iterations),
  )
  params = multihost.fetch(stage.merge(state.actor.params, frozen))
  if multihost.is_main():
    folder = workdir / "model"
    artifact.save(folder, params, stage.network, tokenizer, description)
    if scores is not None:
      configuration.write_json(workdir / "eval.json", scores)
    found = policy.write(workdir, config, warnings)
    then = summary.command("sample", "sample", f"--config.model={folder}")
    summary.say([found], **summary.results(workdir), then=then)
  multihost.barrier("train_policy")


def _train(
  config: Config,
  stage: policy_programs.PolicyStage,
  dataset: prompt_dataset.PromptDataset,
  tokenizer: Tokenizer,
  source: base.RewardSource,
  frozen: Any,
  keys: dict[str, jax.Array],
  measure: evaluation.Measure | None,
  saved: checkpoint.Checkpoints,
  workdir: epath.Path,
) -> tuple[PolicyState, dict[str, float] | None]:
  """The loop from the last checkpoint on: the last state, and its scores."""
  train, scores = config.train, None
  start = saved.latest() or 0
  given = config.data, dataset, tokenizer, train.num_prompts
  order = prompts.make_batches(*given, seed=config.seed, shuffle=True)
  loop.check_rows(order, workdir, start)
  state = (
    saved.restore(start, stage.state) if start else stage.init(keys["init"])
  )
  log.info("starting at iteration %d of %d", start, train.num_iterations)
  stream = loader.batch_iterator(
    order,
    start_step=start,
    num_steps=train.num_iterations - start,
    prefetch=config.data.prefetch,
  )
  texts = _text_stream(config, tokenizer, start)
  rows = stage.batch["where"].sharding
  if jax.process_count() > 1 and start < train.num_iterations:
    loop.check_hosts(order, start)
  rollout_of = rollout.make_rollout(stage, dataset, tokenizer, source)
  guard = step_guard.StepGuard(train.max_bad_steps)
  with (
    preemption.Preemption() as preempted,
    metric_writer.MetricWriter(
      workdir,
      start_step=start,
      num_steps=train.num_iterations,
      is_main=multihost.is_main(),
      trackers=train.trackers,
    ) as report,
  ):
    if measure is not None and start == 0:
      scores = measure(state, 0)
      report.write(0, scores)
    for step, batch in enumerate(stream, start + 1):
      try:
        found = rollout_of(
          state.actor.params,
          frozen,
          batch,
          jax.random.fold_in(keys["sample"], step),
        )
      except base.RewardError:
        report.flush()
        if step > 1 and saved.latest() != step - 1:
          saved.save(step - 1, state, None)
        raise
      begun = time.perf_counter()
      learned = found.batch | multihost.global_batch(next(texts), rows)
      state, metrics = stage.learn(
        state, frozen, learned, jax.random.fold_in(keys["learn"], step)
      )
      guard.exchange(step, metrics, batch["index"])
      # The next samples wait for these parameters in any case.
      report.write(*rollout.measured(*guard.flush()))
      speed = rollout.speed(found, time.perf_counter() - begun)
      report.advance(step, tokens=found.num_tokens)
      report.write_speed(step, {**speed, **report.speed()})
      last, leaving = step == train.num_iterations, preempted.due(step)
      score_due = last or training.every(step, train.eval_every)
      if measure is not None and score_due:
        scores = measure(state, step)
        report.write(step, scores)
      if last or leaving or training.every(step, train.checkpoint_every):
        report.flush()
        saved.save(step, state, None)
      if leaving:
        preempted.leave(step)
  if measure is not None and scores is None:  # resumed after the last step
    scores = measure(state, train.num_iterations)
  return state, scores


def _text_stream(
  config: Config, tokenizer: Tokenizer, start: int
) -> Iterator[dict[str, np.ndarray]]:
  """The texts beside each iteration's responses, from `start` on, if any."""
  if config.texts is None:
    return itertools.repeat({})
  data = config.texts.section(config.data)
  source = sft_data.make_batches(
    data,
    sft_data.load_texts(data, data.train_files, tokenizer),
    tokenizer,
    config.train.num_prompts,
    seed=config.seed,
    shuffle=True,
  )
  stream = loader.batch_iterator(
    source,
    start_step=start,
    num_steps=config.train.num_iterations - start,
    prefetch=data.prefetch,
  )
  return map(ppo_texts.named, stream)


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags(leaves_model=True)
  cli.main(Config, run, resumes=True)


if __name__ == "__main__":
  main()
