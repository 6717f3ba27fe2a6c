r"""Prompts with answers in, a policy that answers like them out.

python -m jaxalign.experiments.sft --config=configs/sft_crowd.py \
    --workdir=runs/sft_crowd
"""

import dataclasses
import math

import jax
from etils import epath

from jaxalign.algorithms import optimizer as optimizers
from jaxalign.algorithms import sft
from jaxalign.experiments.inputs import cautions, texts, tokenizers
from jaxalign.experiments.policies import likelihood
from jaxalign.experiments.stage import (
  backbone,
  configuration,
  ending,
  fitting,
  program,
  training,
)
from jaxalign.models import heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, checkpoint


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything `sft` reads."""

  seed: int
  data: texts.TextConfig
  model: backbone.BackboneConfig
  optimizer: optimizers.OptimizerConfig
  train: training.Schedule
  mesh: meshes.MeshConfig


def build(config: Config, mesh: jax.sharding.Mesh) -> training.Stage:
  """The compiled half of the stage: nothing here touches a dataset.

  Args:
    config: the resolved config.
    mesh: devices, real or abstract.

  Returns:
    The stage's step and abstract arguments.

  Raises:
    ValueError: batch, model and mesh do not fit, before anything is compiled.
  """
  train = config.train
  meshes.check_batch(train.batch_size, train.accumulation, mesh)
  tokenizer = tokenizers.open_tokenizer(config.data, config.model.init_from)
  network = backbone.decoder_config(
    config.model, tokenizer, max_length=config.data.length, num_outputs=None
  )
  model = heads.causal_lm(network)
  log_probs = likelihood.answer_log_probs(
    network, model, dropout=network.dropout > 0
  )
  return training.assemble(
    sft.answer_likelihood(log_probs),
    config.optimizer,
    train,
    model,
    network,
    config.model,
    texts.text_shapes(train.batch_size, config.data.length),
    mesh,
    rules=config.mesh.rules,
  )


def run(config: Config, workdir: epath.Path) -> None:
  """Trains, resuming where `workdir` left off, and writes `model/`.

  Args:
    config: the resolved config.
    workdir: gets metrics.jsonl, speed.jsonl, checkpoints/, model/ and, with
      `data.eval_files`, eval.json.
  """
  checkpoint.check_directory(workdir)
  mesh = meshes.make_mesh(config.mesh)
  stage = build(config, mesh)
  tokenizer = tokenizers.open_tokenizer(config.data, config.model.init_from)
  noted = cautions.Cautions(tokenizer, rows="texts")
  dataset = texts.load_texts(
    config.data, config.data.train_files, tokenizer, noted=noted
  )
  measure = None
  if config.data.eval_files:
    held_out = texts.load_texts(
      config.data,
      config.data.eval_files,
      tokenizer,
      noted=noted,
      held_out=True,
    )
    measure = fitting.remembering(
      likelihood.make_measure(
        config.data, config.mesh.rules, stage, mesh, held_out, tokenizer
      )
    )
  noted.found(holds_out=bool(config.data.eval_files))
  with checkpoint.Checkpoints(
    workdir / "checkpoints",
    keep_last=config.train.keep_last,
    keep_best=0,
    best_metric="eval/nll",
    digests=config.train.digests,
  ) as saved:
    state, params = fitting.fit(
      stage,
      texts.make_batches(
        config.data,
        dataset,
        tokenizer,
        config.train.batch_size,
        seed=config.seed,
        shuffle=True,
      ),
      config.train,
      saved,
      workdir,
      seed=config.seed,
      prefetch=config.data.prefetch,
      measure=measure,
    )
  description = artifact.Description(
    kind="policy",
    heads=(),
    max_length=config.data.length,
    calibration=None,
    utilities=None,
    mixture_weights=None,
    provenance=artifact.provenance(config, config.train.num_steps),
  )
  training.export(stage, config.model, state, workdir, tokenizer, description)
  found = []
  if measure is not None:
    scores = measure(params)
    if multihost.is_main():
      configuration.write_json(workdir / "eval.json", scores)
      guess = math.log(stage.network.vocab_size)
      found = [
        f"held-out NLL {scores['eval/nll']:.3f} nats per answer token; a "
        f"uniform guess has {guess:.3f}"
      ]
  ending.say(
    found,
    model=workdir / "model",
    then=ending.command(
      "train_policy",
      "policy_maxmin_crowd",
      f"--config.model.init_from={workdir / 'model'}",
    ),
  )
  multihost.barrier("sft")


def main() -> None:
  """Runs the stage from the command line."""
  program.define_flags()
  program.main(Config, run, resumes=True)


if __name__ == "__main__":
  main()
