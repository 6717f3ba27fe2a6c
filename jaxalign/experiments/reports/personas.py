"""Persona vote report: labels, agreement and failed answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign import metrics
from jaxalign.data.llm_labels import personas
from jaxalign.experiments.llm_labels.persona_votes import Labelled
from jaxalign.runtime.plots import html_report
from jaxalign.runtime.plots.html_report import decimal, percent, word


def summarise(
  crowd: personas.PersonaFile,
  found: Sequence[Labelled],
  counts: Mapping[str, int],
  lost: Mapping[str, int],
) -> dict[str, Any]:
  """The numbers of a run, as JSON values.

  Args:
    crowd: who was asked.
    found: per response.
    counts: of the endpoint.
    lost: records without labels per split.

  Returns:
    The content of eval.json.
  """
  utilities = np.array([label.utility for label in crowd.labels])
  votes = np.array(
    [[-1 if v is None else v for v in one.votes.values()] for one in found]
  )
  tally = (votes[:, :, None] == np.arange(len(utilities))).sum(axis=1)
  total, pairs = metrics.rater_agreement(tally.astype(np.float32))
  people = {}
  for k, one in enumerate(crowd.personas):
    outcomes = [entry.outcomes[k + 1] for entry in found]
    cast = votes[votes[:, k] >= 0, k]
    people[one.name] = {
      **{kind: outcomes.count(kind) for kind in personas.OUTCOMES},
      "mean_utility": float(utilities[cast].mean()) if len(cast) else None,
    }
  priors = [entry.outcomes[0] for entry in found]
  entropy = metrics.vote_entropy(tally[tally.sum(1) > 0].astype(np.float32))
  return {
    "version": crowd.version,
    "digest": crowd.digest,
    "responses": len(found),
    "labelled": sum(one.alpha is not None for one in found),
    "records_without_labels": dict(lost),
    "endpoint": dict(counts),
    "priors": {kind: priors.count(kind) for kind in personas.OUTCOMES},
    "votes": {
      kind: sum(entry[kind] for entry in people.values())
      for kind in personas.OUTCOMES
    },
    "label_votes": {
      label.name: int(n)
      for label, n in zip(crowd.labels, tally.sum(axis=0), strict=True)
    },
    "entropy_bits": float(entropy.mean()) if entropy.size else None,
    "two_agree": float(total / pairs) if pairs else None,
    "personas": people,
  }


def headline(result: html_report.Result) -> str:
  """How many responses got labels, and how far the personas agree."""
  said = (
    f"{result['labelled']:,} of {result['responses']:,} responses were "
    f"labelled by {result['votes']['valid']:,} valid votes of "
    f"{len(result['personas']):,} personas."
  )
  cast = sum(result["label_votes"].values())
  if result["two_agree"] is None or not cast:
    return said
  chance = sum((n / cast) ** 2 for n in result["label_votes"].values())
  return (
    f"{said} Two personas agree on {percent(result['two_agree'])}; votes drawn "
    f"by the labels' shares alone agree on {percent(chance)}."
  )


def write(
  workdir: epath.Path, crowd: personas.PersonaFile, result: html_report.Result
) -> None:
  """Writes report.html about the crowd that was asked."""
  kinds, votes = personas.OUTCOMES, result["label_votes"]
  cast = max(sum(votes.values()), 1)
  lost = result["records_without_labels"].items()
  without = ", ".join(f"{name} {n:,}" for name, n in lost)
  counts = lambda one: [one[kind] for kind in kinds]
  html_report.write_report(
    workdir / html_report.NAME,
    title=f"Votes of personas, version {result['version']}",
    headline=headline(result),
    basis=f"Mean entropy of the votes {decimal(result['entropy_bits'])} bits. "
    f"Records without labels: {without}.",
    sections=[
      html_report.Table(
        "Labels",
        ["label", "utility", "votes", "share"],
        [
          [label.name, label.utility, votes[label.name],
           percent(votes[label.name] / cast)]
          for label in crowd.labels
        ],
      ),
      html_report.Table(
        "Who answered what",
        ["persona", *kinds, "mean utility"],
        [
          ["(population prior)", *counts(result["priors"]), None],
          *(
            [name, *counts(one), one["mean_utility"]]
            for name, one in result["personas"].items()
          ),
        ],
        "A vote counts only in exactly the form asked for.",
      ),
      html_report.Table(
        "The endpoint",
        ["count", "number"],
        [[word(k), v] for k, v in result["endpoint"].items()],
        "Attempts that failed are counted by their kind.",
        folded=True,
      ),
    ],
  )  # fmt: skip
