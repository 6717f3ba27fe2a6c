r"""Supervised fine-tuning of a language model on prompts with answers.

python -m jaxalign.experiments.sft --config=configs/sft_crowd.py \
    --workdir=runs/sft_crowd
"""

import dataclasses
import math

import jax
from etils import epath

from jaxalign.algorithms import optimizer as optimizers
from jaxalign.algorithms import sft
from jaxalign.experiments.common import cli, loop, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.datasets import section, warnings
from jaxalign.experiments.datasets import sft as sft_data
from jaxalign.experiments.policy import likelihood
from jaxalign.models import heads
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import artifact, checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `sft` reads.

  Attributes:
    seed: of the initial weights, the order of the data and dropout.
    data: prompts with their answers, and how they are tokenised.
    model: the pretrained folder or the sizes of a model from scratch.
    optimizer: AdamW and its schedule.
    train: steps, batches, evaluations and checkpoints.
    mesh: devices per axis.
  """

  seed: int = 0
  data: sft_data.TextConfig
  model: backbone.BackboneConfig
  optimizer: optimizers.OptimizerConfig
  train: training.Schedule
  mesh: meshes.MeshConfig = meshes.MeshConfig()


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
  tokenizer = section.open_tokenizer(config.data, config.model.init_from)
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
    sft_data.text_shapes(train.batch_size, config.data.length),
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
  tokenizer = section.open_tokenizer(config.data, config.model.init_from)
  noted = warnings.Cautions(tokenizer, rows="texts")
  dataset = sft_data.load_texts(
    config.data, config.data.train_files, tokenizer, noted=noted
  )
  measure = None
  if config.data.eval_files:
    held_out = sft_data.load_texts(
      config.data,
      config.data.eval_files,
      tokenizer,
      noted=noted,
      held_out=True,
    )
    measure = loop.remembering(
      likelihood.make_measure(
        config.data, config.mesh.rules, stage, mesh, held_out, tokenizer
      )
    )
  noted.found(holds_out=bool(config.data.eval_files))
  with training.checkpoints(workdir, config.train) as saved:
    state, params = loop.fit(
      stage,
      sft_data.make_batches(
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
  summary.say(
    found,
    model=workdir / "model",
    then=summary.command(
      "train_policy",
      "policy_maxmin_crowd",
      f"--config.model.init_from={workdir / 'model'}",
    ),
  )
  multihost.barrier("sft")


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags(leaves_model=True)
  cli.main(Config, run, resumes=True)


if __name__ == "__main__":
  main()
