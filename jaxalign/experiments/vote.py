r"""Simulated votes: people whose tastes are rewards compare given responses.

python -m jaxalign.experiments.vote --config=configs/vote_imdb.py \
    --config.files="('runs/sample/responses.jsonl',)" --workdir=runs/vote
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign.data.records import chat, reader, splits
from jaxalign.data.records.record import Record
from jaxalign.data.synthetic import voters
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.policy import reward_source
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import filesystem, progress_bar

CHUNK = 1024  # responses scored at a time, for the bar


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `vote` reads.

  Attributes:
    seed: of who people are, what they are shown and how they vote.
    files: sources of records with two responses or more to a prompt.
    source: what each group wants: an output of it is the taste of a group.
    crowd_seed: of synthetic sources.
    shares: of the groups among people, one for each output, adding up to 1.
    num_people: who vote on training prompts.
    num_test_people: others, who vote on held-out prompts.
    pairs_per_person: votes of each.
    test_fraction: expected share of prompts that are held out.
    temperature: of a vote in the unit of the source's rewards, whose outputs
      should therefore have one, such as deviations (`calibrated`); 0 for the
      higher reward always.
    mesh: devices of the source's models.
  """

  seed: int = 0
  files: tuple[str, ...]
  source: reward_source.RewardSourceConfig
  crowd_seed: int = 0
  shares: tuple[float, ...] = (0.8, 0.2)
  num_people: int = 100
  num_test_people: int = 50
  pairs_per_person: int = 20
  test_fraction: float = 0.1
  temperature: float = 0.0
  mesh: meshes.MeshConfig = meshes.MeshConfig()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1,
      num_people=self.num_people,
      num_test_people=self.num_test_people,
      pairs_per_person=self.pairs_per_person,
    )
    checks.at_least(0, temperature=self.temperature)
    if not 0 < self.test_fraction < 1:
      raise ValueError(
        f"test_fraction must be in (0, 1), got {self.test_fraction}"
      )
    if min(self.shares, default=0) < 0 or abs(sum(self.shares) - 1) > 1e-6:
      raise ValueError(
        f"shares must be >= 0 and add up to 1, got {self.shares}"
      )


def rewards_of(source: Any, records: Sequence[Record]) -> list[np.ndarray]:
  """Rewards of every record's responses, float [n, K] each."""
  texts = [(r.prompt, chat.text_of(t)) for r in records for t in r.responses]
  parts = []
  starts = range(0, len(texts), CHUNK)
  for at in progress_bar.watched(
    starts, total=len(starts), what="scoring responses"
  ):
    prompts, responses = zip(*texts[at : at + CHUNK], strict=True)
    parts.append(np.asarray(source(prompts, responses)))
  ends = np.cumsum([len(record.responses) for record in records])
  return np.split(np.concatenate(parts), ends[:-1])


def pairs_of(
  records: Sequence[Record],
  votes: Sequence[voters.Vote],
  names: Sequence[str],
  prefix: str,
) -> list[Record]:
  """A pair of each vote, with the person and the group."""
  return [
    Record(
      records[vote.record].prompt,
      tuple(
        records[vote.record].responses[at]
        for at in (vote.chosen, vote.rejected)
      ),
      annotator=f"{prefix}-{vote.person:04d}",
      group=names[vote.group],
      source=records[vote.record].source,
    )
    for vote in votes
  ]


def describe(
  votes: Sequence[voters.Vote],
  rewards: Sequence[np.ndarray],
  names: Sequence[str],
) -> dict[str, Any]:
  """What was voted, as JSON values.

  Args:
    votes: of people.
    rewards: of the responses to each prompt, [n, K].
    names: of the K groups.

  Returns:
    `pairs` and, by group, its `people`, `pairs`, and by taste in how many of
    its votes the chosen response has the higher reward, ties as half.
  """
  group = np.array([vote.group for vote in votes])
  gaps = np.array(
    [rewards[v.record][v.chosen] - rewards[v.record][v.rejected] for v in votes]
  )
  right = (np.sign(gaps) + 1) / 2
  found: dict[str, Any] = {"pairs": len(votes), "groups": {}}
  for k, name in enumerate(names):
    mine = group == k
    people = {vote.person for vote in votes if vote.group == k}
    won = right[mine].mean(axis=0) if mine.any() else np.full(len(names), None)
    found["groups"][name] = {
      "people": len(people),
      "pairs": int(mine.sum()),
      "won": dict(zip(names, won.tolist(), strict=True)),
    }
  return found


def run(config: Config, workdir: epath.Path) -> None:
  """Writes train.jsonl, eval.jsonl and eval.json.

  Args:
    config: the resolved config.
    workdir: gets the pairs of training people on training prompts, those of
      other people on held-out prompts, and what was voted.

  Raises:
    ValueError: the source has another number of outputs than there are shares,
      or no record of one side has two responses.
    RewardError: the source gave up.
  """
  source = reward_source.open_source(
    config.source,
    meshes.make_mesh(config.mesh),
    config.mesh.rules,
    crowd_seed=config.crowd_seed,
  )
  if len(source.names) != len(config.shares):
    raise ValueError(
      f"shares must have one for each of {', '.join(source.names)}, got "
      f"{config.shares}"
    )
  stream = reader.RecordStream(
    config.files, "error", (), crowd_seed=config.crowd_seed
  )
  records = [record for record in stream if len(record.responses) > 1]
  sides = {
    side: [
      record
      for record in records
      if splits.is_held_out(record, "prompt", config.test_fraction) is held_out
    ]
    for side, held_out in (("train", False), ("eval", True))
  }
  people = {"train": config.num_people, "eval": config.num_test_people}
  result: dict[str, Any] = {}
  for number, (side, given) in enumerate(sides.items()):
    if not given:
      raise ValueError(
        f"{config.files} hold no record with two responses for {side}, of "
        f"{len(records)} in all: sample more, or change test_fraction"
      )
    rewards = rewards_of(source, given)
    votes = voters.draw(
      rewards,
      shares=config.shares,
      num_people=people[side],
      pairs_per_person=config.pairs_per_person,
      temperature=config.temperature,
      seed=2 * config.seed + number,
    )
    result[side] = describe(votes, rewards, source.names)
    _write(
      workdir / f"{side}.jsonl", pairs_of(given, votes, source.names, side)
    )
  if multihost.is_main():
    configuration.write_json(workdir / "eval.json", result)
  summary.say(
    [in_words(result["train"])],
    records=workdir / "train.jsonl",
    then=summary.command(
      "train_reward",
      "rm_mixture_crowd",
      f"--config.data.train_files={(str(workdir / 'train.jsonl'),)}",
      f"--config.data.eval_files={(str(workdir / 'eval.jsonl'),)}",
    ),
  )


def _write(path: epath.Path, pairs: Sequence[Record]) -> None:
  if multihost.is_main():
    text = "".join(f"{json.dumps(pair.to_row())}\n" for pair in pairs)
    filesystem.write_atomically(path, text.encode())


def in_words(found: Mapping[str, Any]) -> str:
  """Who voted, and how often each group chose by its own taste."""
  groups = ", ".join(
    f"{part['people']} of {name}"
    + (f" (by it in {100 * part['won'][name]:.0f} %)" if part["pairs"] else "")
    for name, part in found["groups"].items()
  )
  return f"{found['pairs']:,} votes of {groups}"


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run)


if __name__ == "__main__":
  main()
