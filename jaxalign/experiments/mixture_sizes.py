r"""Number of latent groups, chosen by the likelihood of held-out annotators.

python -m jaxalign.experiments.mixture_sizes \
      --config=configs/rm_mixture_crowd.py --workdir=runs/sizes \
      --config.data.split_by=annotator --max_components=3
"""

import dataclasses
import logging

from absl import flags
from etils import epath

from jaxalign.experiments import train_reward
from jaxalign.experiments.common import cli, resume, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import metric_writer, workdir_lock

log = logging.getLogger("jaxalign")


def run(
  config: train_reward.Config, workdir: epath.Path, *, max_components: int
) -> None:
  """Trains mixtures of 1 to `max_components` and compares them.

  A run that is done is not repeated, so a kill costs the run it hits.

  Args:
    config: of `train_reward` with the recipe `mixture`; its num_components is
      replaced.
    workdir: gets a folder per number, components_K, and sizes.json: `user_nll`,
      nats per pair of all that each held-out person has said together, per
      number, and `chosen`, the number where it is lowest.
    max_components: largest number to try.

  Raises:
    ValueError: the recipe is another one or knows the groups, people are not
      held out, or there is nothing to compare.
  """
  recipe = config.recipe
  if recipe.name != "mixture":
    raise ValueError(f"recipe.name must be 'mixture', got {recipe.name!r}")
  if recipe.assignment == "oracle":
    raise ValueError("assignment must not be 'oracle', whose number is known")
  if config.data.split_by != "annotator" or not config.data.holds_out:
    raise ValueError(
      "data.split_by must be 'annotator', with held-out records, got "
      f"{config.data.split_by!r}"
    )
  if max_components < 2:
    raise ValueError(f"max_components must be >= 2, got {max_components}")
  members = {
    number: dataclasses.replace(
      config, recipe=dataclasses.replace(recipe, num_components=number)
    )
    for number in range(1, max_components + 1)
  }
  folder_of = lambda number: workdir / f"components_{number}"
  for number, one in members.items():
    resume.check(one, folder_of(number), resumes=True)
  found = {}
  for number, one in members.items():
    folder = folder_of(number)
    if not (folder / "report.html").exists():
      folder.mkdir(parents=True, exist_ok=True)
      with (
        workdir_lock.held(folder, is_main=multihost.is_main()),
        summary.as_a_step(),
      ):
        if multihost.is_main():
          resume.begin(one, folder, resumes=True)
        multihost.barrier(f"{folder.name} begins")
        train_reward.run(one, folder, profile=False)
    multihost.barrier(folder.name)
    rows = metric_writer.read_rows(folder / "metrics.jsonl")
    scored = [row["eval/user_nll"] for row in rows if "eval/user_nll" in row]
    found[number] = scored[-1]
    log.info("%d components: %.4f nats per pair", number, found[number])
  if multihost.is_main():
    chosen = min(found, key=lambda number: found[number])
    configuration.write_json(
      workdir / "sizes.json", {"user_nll": found, "chosen": chosen}
    )
    groups = "latent group" if chosen == 1 else "latent groups"
    summary.say(
      [
        f"{chosen} {groups}: {found[chosen]:.4f} nats per held-out pair; "
        f"a single one: {found[1]:.4f}"
      ],
      model=workdir
      / f"components_{chosen}"
      / ("models" if config.recipe.separate else "model"),
      sizes=workdir / "sizes.json",
    )


def main() -> None:
  """Runs the comparison from the command line."""
  cli.define_flags()
  flags.DEFINE_integer("max_components", 4, "Largest number of groups to try.")
  cli.main(
    train_reward.Config,
    run,
    max_components=lambda: flags.FLAGS.max_components,
  )


if __name__ == "__main__":
  main()
