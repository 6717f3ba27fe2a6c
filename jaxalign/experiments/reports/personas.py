"""What a crowd of personas said, counted, and a page about it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from jaxalign import metrics
from jaxalign.data.llm_labels import personas
from jaxalign.experiments.llm_labels.persona_votes import Labelled
from jaxalign.runtime.plots import data, html_report


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


def in_words(result: Mapping[str, Any]) -> str:
  """The counts on one line."""
  lost = [
    f"{n:,} {kind}" for kind, n in result["votes"].items() if kind != "valid"
  ]
  return (
    f"{result['labelled']:,} of {result['responses']:,} responses labelled by "
    f"{result['votes']['valid']:,} votes; {', '.join(lost)}"
  )


def write(
  workdir: epath.Path, crowd: personas.PersonaFile, result: Mapping[str, Any]
) -> None:
  """Writes report.html.

  Args:
    workdir: gets the page.
    crowd: who was asked.
    result: of `summarise`.
  """
  kinds = personas.OUTCOMES
  cast = sum(result["label_votes"].values())
  busiest = max(result["votes"].values(), default=0)
  sections: list[html_report.Table | html_report.Figure | html_report.Text] = [
    html_report.Table(
      title="Labels",
      columns=["label", "utility", "votes", "share"],
      rows=[
        [label.name, label.utility, result["label_votes"][label.name],
         f"{100 * result['label_votes'][label.name] / max(cast, 1):.1f} %"]
        for label in crowd.labels
      ],
    ),
    html_report.Table(
      title="Who answered what",
      columns=["persona", *kinds, "mean utility"],
      rows=[
        ["(population prior)", *(result["priors"][k] for k in kinds), None],
        *(
          [name, *(one[k] for k in kinds), one["mean_utility"]]
          for name, one in result["personas"].items()
        ),
      ],
      note="A vote counts only in exactly the form asked for.",
    ),
    html_report.Table(
      title="The endpoint",
      columns=["count", "number"],
      rows=[[k.replace("_", " "), v] for k, v in result["endpoint"].items()],
      note="Attempts that failed are counted by their kind.",
    ),
  ]  # fmt: skip
  if busiest:
    sections.append(
      html_report.Figure(
        "Votes per label",
        data.ranked_counts(
          [n for n in result["label_votes"].values() if n],
          label="labels, most voted first",
          unit="votes",
        ),
      )
    )
  shown = [
    f"{name}: {value:.3f}."
    for name, value in (
      ("Mean entropy of the votes in bits", result["entropy_bits"]),
      ("Two personas agree", result["two_agree"]),
    )
    if value is not None
  ]
  without = ", ".join(
    f"{name} {n:,}" for name, n in result["records_without_labels"].items()
  )
  html_report.write_report(
    workdir / "report.html",
    title=f"Votes of personas, version {result['version']}",
    summary="\n\n".join(
      [in_words(result) + ".", *shown, f"Records without labels: {without}."]
    ),
    sections=sections,
  )
