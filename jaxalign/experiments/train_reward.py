r"""Reward model training: preferences in, a model folder and its report out.

python -m jaxalign.experiments.train_reward \
      --config=configs/rm_bt_crowd.py --workdir=runs/rm_bt_crowd
"""

import dataclasses

import jax
from absl import flags
from etils import epath

from jaxalign.experiments import evaluate
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import stage as training
from jaxalign.experiments.reward_model import fitting, frozen_backbone
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import checkpoint


@dataclasses.dataclass(frozen=True)
class Config(fitting.RewardConfig):
  """Everything `train_reward` reads."""


def build(config: Config, mesh: jax.sharding.Mesh) -> training.Stage:
  """The compiled half of the stage; see `fitting.build`."""
  return fitting.build(config, mesh)


def export(
  config: Config,
  loaded: fitting.Loaded,
  stage: training.Stage,
  trained: fitting.Trained,
  workdir: epath.Path,
) -> list[epath.Path]:
  """Writes `model/`, or `models/NAME/` of each group's own reward model.

  Args:
    config: the resolved config.
    loaded: for the tokenizer.
    stage: from `build`.
    trained: from `fit`.
    workdir: of the run; gets `adapters/` as well, where these were trained.

  Returns:
    The folders.
  """
  more = workdir, loaded.tokenizer, trained.description
  if loaded.texts is not None:
    network = stage.network
    frozen_backbone.export(config.model, network, trained.params, *more)
    return [workdir / "model"]
  network = frozen_backbone.exported(config.model, stage.network)
  stage = stage._replace(network=network)
  chosen = config.made()
  if chosen.copies is None:
    training.export(stage, config.model, trained.state, *more)
    return [workdir / "model"]
  return training.export_copies(
    stage,
    config.model,
    trained.state,
    {
      f"models/{name}": trained.description.of_head(k)
      for k, name in enumerate(chosen.outputs)
    },
    workdir,
    loaded.tokenizer,
  )


def run(config: Config, workdir: epath.Path, *, profile: bool) -> None:
  """Trains, resuming where `workdir` left off, and writes `model/`.

  Every part is safe to repeat: a run that was killed after its last step goes
  straight to the final evaluation and export.

  Args:
    config: the resolved config.
    workdir: gets metrics.jsonl, speed.jsonl, checkpoints/, model/ or models/
      and, with held-out records, eval.json and report.html.
    profile: write a trace of a few steps to `workdir/profile`.
  """
  checkpoint.check_directory(workdir)
  mesh = meshes.make_mesh(config.mesh)
  if fitting.is_counted(config):
    build(config, mesh)  # what does not fit ends the run before data is read
  config, loaded = fitting.load(config)
  config, loaded = fitting.frozen_texts(config, loaded, mesh, workdir)
  stage = fitting.build(config, mesh, loaded.place)
  trained = fitting.fit(config, loaded, stage, mesh, workdir, profile=profile)
  folders = export(config, loaded, stage, trained, workdir)
  evaluate.write_trained(config, loaded, trained, workdir)
  score = summary.command("score", "score", f"--config.model={folders[0]}")
  summary.say(model=", ".join(map(str, folders)), then=score)
  multihost.barrier("train_reward")


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags(leaves_model=True)
  flags.DEFINE_bool("profile", False, "Write a trace of a few steps.")
  cli.main(Config, run, resumes=True, profile=lambda: flags.FLAGS.profile)


if __name__ == "__main__":
  main()
