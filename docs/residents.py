r"""Residents and a policy: files of votes and prompts, and a study's table.

    python docs/residents.py files --data=$JAXALIGN_DATA \
        --workdir=runs/residents
    python docs/residents.py table --workdir=runs/residents

`files` parts a Polis conversation in two: `learn.jsonl` has the votes of one
half of the people on two thirds of the statements, for rewards to learn from;
`judge.jsonl` those of the other half of the people on the other statements.
Nobody and no statement is on both sides. `prompts.jsonl` and `held_out.jsonl`
ask a policy for statements about the town, about other subjects each. The
commands between the two are in docs/policy.md, "From votes to a policy of a
language model".

`table` reads what `score` left of answers to the held-out prompts: rewards by
the judge, whose heads are those of Polis' published groups, and of the start's
answers those by the rewards that policies were trained on, by which the best of
n is picked. An interval is over prompts with all of their answers, the same
draws for all policies. People are taken as they are; each reward is one fit.

Written down before it was run. The paper (Chakraborty et al., 2024) claims a
third more for the minority at no cost to the majority. Claimed of
SmolLM2-135M-Instruct and bowling-green, whose two groups are of like size, one
seed, in deviations of a statement's reward by the judge:

1. The policy of the mixture's minimum gives the worst-off group 0.1 or more
   over the start. With 24 prompts of 8 answers, a deviation of 0.7 within a
   prompt and 0.4 of the gains between prompts, a standard error is 0.11, so the
   smallest effect that can be shown (5 %, power 80 %) is 0.3.
2. It is not above the policy of one pooled reward by as much as can be shown,
   as the groups are of like size and the best of eight is not.
3. Its gain is less than what the best of 8 of the start's own answers gives by
   the same rewards, which costs 1.2 nats: so few iterations learn little.
4. Neither group loses as much as can be shown.

Control: the start's answers, sampled once more with another seed, must differ
from the first by less than can be shown.
"""

import argparse
import hashlib
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import paired_tables
import statement_votes
from tabulate_statements import ASKED, QUESTIONS

TOWN = "bowling-green"
PLACE = "Bowling Green and Warren County"
ABOUT = (
  "the roads", "public schools", "the speed of internet access", "downtown",
  "rents", "parks and trails", "public buses", "recycling", "the police",
  "drug addiction", "jobs for young people", "the university", "traffic lights",
  "sidewalks", "local taxes", "new apartment buildings", "homeless people",
  "farmland", "the public library", "local restaurants", "parking", "litter",
  "newcomers", "the county jail",
  "mental health care", "child care", "air pollution", "billboards",
  "local elections", "bicycle lanes", "shops and malls", "health insurance",
)  # fmt: skip
HELD_OUT = (
  "the airport", "teachers' pay", "electricity", "small businesses", "noise",
  "the river", "tourists", "sports and gyms", "people over 65", "the hospital",
  "trees", "museums and theatres", "speed limits", "street festivals",
  "street lights", "city government", "minimum wages", "veterans",
  "school buses", "the fairground",
  "trains", "abandoned houses", "water quality", "pets and stray animals",
)  # fmt: skip
QUESTION = "What should {} do about {}?"
NAMES = {
  "start": "the start",
  "again": "control: the start, another seed",
  "pooled": "policy of one reward",
  "maxmin": "policy of the mixture's minimum",
}
BEST = {"by_one_reward": "best of {} by one reward",
        "by_mixture": "best of {} by the mixture's minimum"}  # fmt: skip
DRAWS = 2000


def asked(question: str) -> list[dict[str, str]]:
  """A prompt of one turn."""
  return [{"role": "user", "content": ASKED.format(question)}]


def below(text: str, share: float) -> bool:
  """Whether a text falls in a share of all, by its hash."""
  digest = hashlib.sha256(f"residents|{text}".encode()).digest()
  return int.from_bytes(digest[:8]) < share * 2**64


def rows_of(
  votes: statement_votes.Votes, question: str
) -> dict[str, list[dict[str, Any]]]:
  """Votes of both sides, as `item_votes` reads them.

  Args:
    votes: the conversation.
    question: that the statements are taken to answer.

  Returns:
    "learn" and "judge"; in the latter people without a group are left out.
  """
  found: dict[str, list[dict[str, Any]]] = {"learn": [], "judge": []}
  for u, person in enumerate(votes.people):
    judging, group = below(person, 0.5), int(votes.group[u])
    if judging and group < 0:
      continue
    for i in np.flatnonzero(votes.value[u] != statement_votes.MISSING):
      text = votes.texts[i][1].strip()
      if below(text, 1 / 3) == judging:
        row = dict(person=person, item=str(i), text=text)
        row |= dict(vote=int(votes.value[u, i]), prompt=asked(question))
        row |= {"group": str(group)} if group >= 0 else {}
        found["judge" if judging else "learn"].append(row)
  return found


def write(named: argparse.Namespace) -> None:
  """Writes the four files."""
  named.workdir.mkdir(parents=True, exist_ok=True)
  votes = statement_votes.read(f"{named.data}/polis", TOWN)
  files = rows_of(votes, QUESTIONS[TOWN])
  for name, subjects in (("prompts", ABOUT), ("held_out", HELD_OUT)):
    files[name] = [
      {"prompt": asked(QUESTION.format(PLACE, subject))} for subject in subjects
    ]
  for name, rows in files.items():
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (named.workdir / f"{name}.jsonl").write_text(lines)


def rewards(path: pathlib.Path) -> np.ndarray:
  """Rewards of the answers to each prompt, [P, N, K]."""
  lines = path.read_text().splitlines()
  return np.array([json.loads(line)["rewards"] for line in lines])


def picked(judged: np.ndarray, scored: np.ndarray) -> np.ndarray:
  """The judge's rewards of the best of n by the least reward, [P, 1, G].

  Args:
    judged: [P, N, G].
    scored: calibrated rewards by which it is picked, [P, N, K].
  """
  best = np.argmax(scored.min(axis=-1), axis=1)
  return judged[np.arange(len(judged)), best][:, None]


def utilities(judged: np.ndarray) -> np.ndarray:
  """Mean reward by group and their least, [G + 1], of [P, N, G]."""
  means = judged.mean(axis=(0, 1))
  return np.append(means, means.min())


def drawn(rows: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, Any]:
  """Utilities of every row of the table over draws of prompts.

  Args:
    rows: the judge's rewards, [P, N, G] each, of the same P prompts.
    seed: of the draws.

  Returns:
    [1 + DRAWS, G + 1] each, what is there first.
  """
  rng = np.random.default_rng(seed)
  number = len(rows["start"])
  draws = [np.arange(number), *rng.integers(number, size=(DRAWS, number))]
  return {
    name: np.array([utilities(judged[prompts]) for prompts in draws])
    for name, judged in rows.items()
  }


def interval(leads: np.ndarray) -> str:
  """A difference with its interval and what could be shown, of [1 + DRAWS]."""
  low, high = np.quantile(leads[1:], (0.025, 0.975))
  least = 2.8 * leads[1:].std()
  return f"{leads[0]:+.2f} [{low:+.2f}, {high:+.2f}], least {least:.2f}"


def table(rows: Mapping[str, np.ndarray], size: int) -> list[str]:
  """Lines of Markdown: each policy against the start and the minimum's.

  Args:
    rows: as of `drawn`.
    size: answers of which the best is picked.
  """
  found = drawn(rows)
  start = found["start"]
  groups = start.shape[1] - 1
  head = ["answers of", "worst-off group", "− start [95 %]"]
  head += [f"group {g} − start [95 %]" for g in range(groups)]
  head += ["policy of the minimum − this, worst-off [95 %]"]
  lines = []
  for name, words in (NAMES | BEST).items():
    if name not in found:
      continue
    own = found[name]
    cells = [words.format(size), f"{own[0, -1]:+.2f}"]
    leads = [own[:, g] - start[:, g] for g in (-1, *range(groups))]
    leads.append(found.get("maxmin", own)[:, -1] - own[:, -1])
    lines.append(cells + [interval(x) if x.any() else "–" for x in leads])
  return paired_tables.table(head, lines)


def show(named: argparse.Namespace) -> None:
  """Prints the table of what is there."""
  found = {
    name: rewards(named.workdir / f"judged_{name}/scores.jsonl")
    for name in NAMES
    if (named.workdir / f"judged_{name}/scores.jsonl").exists()
  }
  size = found["start"].shape[1]
  for name in BEST:
    scored = rewards(named.workdir / f"start_{name}/scores.jsonl")
    found[name] = picked(found["start"], scored)
  sys.stdout.write("\n".join(table(found, size)))


def main(words: Sequence[str] | None = None) -> None:
  """Writes the files or prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("what", choices=("files", "table"))
  parser.add_argument("--data")
  parser.add_argument("--workdir", type=pathlib.Path, required=True)
  named = parser.parse_args(words)
  run: Callable[[argparse.Namespace], None] = (
    write if named.what == "files" else show
  )
  run(named)


if __name__ == "__main__":
  main()
