"""Model card: README.md of each model folder, from what its run has left.

It names no annotator and no file of this machine: data are given by their
fingerprints. Groups of fewer than `MIN_PEOPLE` named people are not shown.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from jaxalign.experiments.common import provenance
from jaxalign.runtime.io import artifact, filesystem, hub

FILE = "README.md"
SEVERAL = ("models", "policies")  # folders of several models, one in each
MIN_PEOPLE = 5
# Keys of a config that say how a model came about, where they are set.
RECIPE = ("recipe", "coupling", "loss", "policy", "welfare", "kl", "model.lora")
SCHEDULE = (
  *("train.num_steps", "train.num_iterations", "train.batch_size"),
  *("train.num_prompts", "optimizer.learning_rate", "optimizer.schedule"),
  *("model.trainable", "model.layer", "model.pooling", "model.log_length"),
  *("model.mixed_layers", "model.head_units", "model.head_activation"),
  *("model.dtype", "seed"),
)
USE = {
  "reward": """```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained("{name}")
```

The label's logit is the reward of prompt and response as one text. Only
differences between responses to the same prompt have a meaning.
`jaxalign.json` holds the names of the outputs and their calibration; with
jaxalign, `source.models=('{name}',)` reads both.""",
  "policy": """```python
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("{name}")
```""",
}


def folders_of(workdir: epath.Path, name: str) -> dict[str, epath.Path]:
  """The models that a finished run has left, by their repositories.

  Args:
    workdir: of the run.
    name: of the repository, OWNER/NAME.

  Returns:
    `model/` under that name; without one each folder K of `models/` or
    `policies/` under OWNER/NAME-K.
  """
  for kind in SEVERAL:
    if (workdir / kind).is_dir() and not (workdir / "model").exists():
      # By number: component_2 is before component_10.
      parts = sorted((len(p.name), p.name) for p in (workdir / kind).iterdir())
      return {f"{name}-{part}": workdir / kind / part for _, part in parts}
  return {name: workdir / "model"}


def write(workdir: epath.Path, name: str) -> dict[str, epath.Path]:
  """Writes the card into every model's folder; safe to repeat.

  Args:
    workdir: of a finished run.
    name: of the repository on the hub, OWNER/NAME.

  Returns:
    As `folders_of`.

  Raises:
    ValueError: the run has left no complete model.
  """
  evaluation = _read(workdir / "eval.json")
  found = folders_of(workdir, name)
  for number, (repository, folder) in enumerate(found.items()):
    described = artifact.load_description(folder)
    card = text(
      repository,
      described,
      origin=provenance.read(workdir),
      evaluation=_of_head(evaluation, number) if len(found) > 1 else evaluation,
      answers=_read(workdir / "answers.json"),
    )
    filesystem.write_atomically(folder / FILE, card.encode())
  return found


def _of_head(evaluation: Mapping[str, Any], number: int) -> Mapping[str, Any]:
  """What was measured of one of several models, which are scored as heads."""
  if "models" not in evaluation:
    return evaluation
  models = evaluation["models"]
  own = [model for model in models if model.endswith(f", head {number}")]
  of = lambda scores: {model: scores[model] for model in own}
  groups = {
    group: {**part, "accuracy": of(part["accuracy"])}
    for group, part in evaluation.get("groups", {}).items()
  }
  return {**evaluation, "models": of(models), "groups": groups}


def push(workdir: epath.Path, name: str) -> list[str]:
  """Writes the card of every model and uploads its folder with it.

  Args:
    workdir: of a finished run.
    name: of the repository on the hub, OWNER/NAME.

  Returns:
    The addresses of the commits, one for each of `folders_of`.

  Raises:
    ValueError: there is no complete model; the hub is out of reach or refuses.
  """
  return [
    hub.upload(
      filesystem.fetched(str(folder)),
      repository,
      message="Upload model and model card",
    )
    for repository, folder in write(workdir, name).items()
  ]


def text(
  name: str,
  described: artifact.Description,
  *,
  origin: Mapping[str, Any],
  evaluation: Mapping[str, Any],
  answers: Mapping[str, Any],
) -> str:
  """The card.

  Args:
    name: of the repository on the hub.
    described: content of `jaxalign.json`.
    origin: content of `origin.json`, empty where there is none.
    evaluation: content of `eval.json`, empty where nothing was held out.
    answers: content of `answers.json` of a policy, else empty.

  Returns:
    Markdown below YAML.
  """
  config = described.provenance["config"]
  metrics: list[str] = []
  if "models" in evaluation:
    metrics = _of_pairs(evaluation)
  elif evaluation:
    metrics = _of_numbers(evaluation, answers)
  parts = [
    _header(described, config, origin),
    f"# {name.partition('/')[2]}",
    _summary(described, config, origin),
    "## Recipe",
    _table(("key", "value"), _recipe(described, config)),
    "## Data",
    *_data(origin, evaluation),
    "## Evaluation",
    *(metrics or ["Nothing was held out: how good it is was not measured."]),
    "## Limitations",
    *_limitations(described, evaluation),
    "## Use",
    USE[described.kind].format(name=name),
  ]
  return "\n\n".join(parts) + "\n"


def _read(path: epath.Path) -> Mapping[str, Any]:
  return dict(json.loads(path.read_text())) if path.exists() else {}


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
  """A table of Markdown."""
  clean = lambda cell: str(cell).replace("|", "\\|").replace("\n", " ")
  return "\n".join(
    f"| {' | '.join(map(clean, row))} |"
    for row in (columns, ["---"] * len(columns), *rows)
  )


def _base(
  config: Mapping[str, Any], origin: Mapping[str, Any]
) -> tuple[str | None, str | None]:
  """Id on the hub of the model that training began with, and its commit."""
  named = config.get("model", {}).get("init_from")
  if named is None or not hub.is_hub_id(named):
    return None, None
  revision = origin.get("revisions", {}).get("model.init_from")
  return named.partition("@")[0], revision


def _header(
  described: artifact.Description,
  config: Mapping[str, Any],
  origin: Mapping[str, Any],
) -> str:
  """What the hub reads: tags and the model that this one is made of."""
  task = {"reward": "text-classification", "policy": "text-generation"}
  lines = [
    "library_name: transformers",
    f"pipeline_tag: {task[described.kind]}",
  ]
  base, _ = _base(config, origin)
  if base is not None:
    lines.append(f"base_model: {base}")
  tags = ["jaxalign", {"reward": "reward-model"}.get(described.kind, "rlhf")]
  return "\n".join(["---", *lines, "tags:", *(f"- {t}" for t in tags), "---"])


def _summary(
  described: artifact.Description,
  config: Mapping[str, Any],
  origin: Mapping[str, Any],
) -> str:
  base, revision = _base(config, origin)
  begun = "from scratch" if config["model"]["init_from"] is None else ""
  if not begun:
    begun = "from a model that is not on the hub"
    if base is not None:
      at = f" at {revision}" if revision else ""
      begun = f"from [{base}](https://huggingface.co/{base}){at}"
  kind = "A reward model" if described.kind == "reward" else "A language model"
  heads = ""
  if described.heads:
    heads = f" Outputs: {', '.join(f'`{head}`' for head in described.heads)}."
  return (
    f"{kind}, trained {begun} with jaxalign "
    f"{described.provenance['jaxalign']}, for up to {described.max_length} "
    f"tokens.{heads}"
  )


def _recipe(
  described: artifact.Description, config: Mapping[str, Any]
) -> list[tuple[str, Any]]:
  """What decides how a model came about, key by key."""
  rows: list[tuple[str, Any]] = []

  def add(key: str, value: Any) -> None:
    if isinstance(value, Mapping):
      for name, inner in value.items():
        add(f"{key}.{name}", inner)
    elif value is not None:
      rows.append((f"`{key}`", f"`{value}`"))

  for key in (*RECIPE, *SCHEDULE):
    value: Any = config
    for name in key.split("."):
      value = value.get(name) if isinstance(value, Mapping) else None
    add(key, value)
  rows.append(("step of this model", described.provenance["step"]))
  return rows


def _data(
  origin: Mapping[str, Any], evaluation: Mapping[str, Any]
) -> list[str]:
  """Fingerprints of what was read, and what became of it."""
  contents = origin.get("contents", {})
  found = [
    "SHA-256 of what was read; the data themselves are not part of this model.",
    _table(
      ("input", "fingerprint"),
      [(f"`{key}`", f"`{value}`") for key, value in contents.items()],
    ),
  ]
  lost = ", ".join(f"{k} {v}" for k, v in evaluation.get("lost", {}).items())
  if lost:
    found.append(f"Held-out pairs lost or cut while reading: {lost}.")
  return found


def _score(score: Mapping[str, Any]) -> str:
  """A score with its interval, where there is one."""
  if score.get("low") is None:
    return f"{score['value']:.3f}"
  return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def _of_pairs(evaluation: Mapping[str, Any]) -> list[str]:
  """Scores on held-out pairs: all, by source, by group."""
  rows = [
    (
      *(name, source, scores["num_pairs"]),
      *(_score(scores[key]) for key in ("accuracy", "nll", "ece")),
    )
    for name, by_source in evaluation["models"].items()
    for source, scores in by_source.items()
  ]
  baselines = ", ".join(
    f"{name.replace('_', ' ')} {value:.3f}"
    for name, value in evaluation["baselines"]["all"].items()
  )
  found = [
    f"On held-out pairs, with 95 % intervals over "
    f"{evaluation['intervals_over']}. Accuracy without this model: "
    f"{baselines}.",
    _table(("output", "source", "pairs", "accuracy", "NLL", "ECE"), rows),
  ]
  shown, hidden = groups_of(evaluation)
  if shown:
    models = list(evaluation["models"])
    found += [
      "Accuracy by group of people:",
      _table(
        ("group", "people", "pairs", *models),
        [
          (
            *(name, part["num_people"], part["num_pairs"]),
            *(_score(part["accuracy"][model]) for model in models),
          )
          for name, part in shown.items()
        ],
      ),
    ]
  if hidden:
    found.append(
      f"{hidden} group{'s' * (hidden > 1)} of fewer than {MIN_PEOPLE} named "
      "people are not shown."
    )
  for scores in evaluation.get("mixtures", {}).values():
    shares = ", ".join(f"{share:.2f}" for share in scores["weights"])
    found.append(f"Shares of the latent groups: {shares}.")
    found += _new_people(scores)
  for scores in evaluation.get("personal", {}).values():
    found += _new_people(scores)
  return found


def _new_people(scores: Mapping[str, Any]) -> list[str]:
  """How well people are predicted by their own first pairs, where known."""
  if not (lines := scores.get("new_users")):
    return []
  columns = ("own pairs seen", "accuracy")
  placed = [(ln["pairs_seen"], f"{ln['accuracy']:.3f}") for ln in lines]
  return ["New people, by their own pairs:", _table(columns, placed)]


def groups_of(
  evaluation: Mapping[str, Any],
) -> tuple[dict[str, Mapping[str, Any]], int]:
  """Known groups that may be shown, and how many may not.

  Args:
    evaluation: content of `eval.json` of a reward model.
  """
  groups = evaluation.get("groups", {})
  shown = {k: v for k, v in groups.items() if v["num_people"] >= MIN_PEOPLE}
  return shown, len(groups) - len(shown)


def _of_numbers(
  evaluation: Mapping[str, Any], answers: Mapping[str, Any]
) -> list[str]:
  """Numbers of a language model or policy, with errors where known."""
  end = answers.get("end", {})
  errors = end.get("standard_error", {})
  rows = []
  for key, value in evaluation.items():
    if not isinstance(value, (int, float)):
      continue
    error = errors.get(key.rpartition("/")[2])
    more = f" ± {error:.3f}" if error is not None else ""
    rows.append((f"`{key}`", f"{value:.3f}{more}"))
  said = "On held-out records."
  if errors:
    said = (
      f"On {end['num_prompts']} held-out prompts; ± is a standard error over "
      "prompts."
    )
  return [said, _table(("metric", "value"), rows)]


def _limitations(
  described: artifact.Description, evaluation: Mapping[str, Any]
) -> list[str]:
  """What the numbers above do not say."""
  said = [
    "One seed: another one moves these numbers by more than intervals say.",
    "It holds the preferences of the people in its data, and was not measured "
    "on others.",
    "It was not tested for safety, nor on texts made to mislead it.",
  ]
  if described.kind == "reward":
    said.append(
      "A policy that is trained on it will find answers that it overrates; "
      "judge the policy by something else."
    )
    if described.calibration is None:
      said.append("It has no calibration: its unit is arbitrary.")
  shown, _ = groups_of(evaluation)
  least = [
    (part["accuracy"][model]["value"], name, model)
    for name, part in shown.items()
    for model in part["accuracy"]
  ]
  if len(shown) > 1 and len(evaluation["models"]) == 1:
    value, name, _ = min(least)
    said.append(f"It serves group `{name}` worst, with accuracy {value:.3f}.")
  warnings = evaluation.get("warnings", []) if "models" in evaluation else []
  lines = "\n".join(f"- {sentence}" for sentence in (*said, *warnings))
  return [lines]
