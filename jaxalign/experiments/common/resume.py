"""Config check of a resumed run: it must be the run that the workdir holds.

A workdir that holds results is gone on from only by the run that left them:
with the same config, but for what changes neither the state nor the meaning of
a metric, and with inputs of the same content.
"""

import dataclasses
import json
import logging
from typing import Any

from etils import epath

from jaxalign.experiments.common import config as configuration
from jaxalign.experiments.common import config_changes, provenance

log = logging.getLogger("jaxalign")

CONFIG = "config.json"
# What a stage goes on from, or what it ends with: a file, or a filled folder.
RESULTS = (
  "checkpoints",
  "restarts",
  "model",
  "responses.jsonl",
)
SERVERS = ("source.url", "judge.url")


def begin(config: Any, workdir: epath.Path, *, resumes: bool) -> None:
  """Checks the config against a run that the workdir holds, then writes it.

  Args:
    config: the resolved config, a dataclass.
    workdir: of the run; gets config.json and, of a stage that resumes,
      origin.json.
    resumes: whether the stage goes on from what an earlier attempt left.

  Raises:
    ValueError: the workdir holds another run, with the key, what it was and
      what it is. Nothing is written.
  """
  now = dataclasses.asdict(config)
  content = check(config, workdir, resumes=resumes)
  if resumes and "contents" not in content:
    content["contents"] = provenance.contents(now)
  if resumes and (revisions := provenance.revisions(now)):
    content["revisions"] = revisions
  configuration.write_json(workdir / CONFIG, now)
  if resumes:
    provenance.write(workdir, content)


def check(config: Any, workdir: epath.Path, *, resumes: bool) -> dict[str, Any]:
  """As `begin`, without writing anything.

  Returns:
    What origin.json of a stage that resumes is to hold; without fingerprints
    of the inputs where nothing was there to compare them with.
  """
  versions = provenance.versions()
  if not has_results(workdir) or not (workdir / CONFIG).exists():
    return {"versions": versions}
  now, held = dataclasses.asdict(config), provenance.read(workdir)
  changes = config_changes.differences(stored(type(config), workdir), now)
  old = held.get("contents", {})
  new = provenance.contents(now) if resumes else {}
  kept = [
    change
    for change in _without_moved(changes, old, new)
    if not config_changes.may(change)
  ]
  if kept:
    raise ValueError(_refusal(workdir, kept))
  if resumes:
    _check_contents(workdir, now, old, new)
  _tell(changes, now)
  _warn_of_versions(workdir, held, versions)
  told = held.get("changes", []) + [change._asdict() for change in changes]
  return {"versions": versions} | held | {"contents": new, "changes": told}


def has_results(workdir: epath.Path) -> bool:
  """Whether a stage would go on from what is there, or has finished there."""
  for name in RESULTS:
    path = workdir / name
    if path.is_dir():
      # Orbax makes its folder first, and names what is half-written otherwise.
      found = (child.name for child in path.iterdir())
      if any("-tmp" not in name for name in found):
        return True
    elif path.exists() and path.stat().length:
      return True
  return False


def stored(kind: type[Any], workdir: epath.Path) -> dict[str, Any]:
  """The config of the run that a workdir holds, in the keys of this version.

  Args:
    kind: the stage's config dataclass; keys that its config did not have yet
      get their defaults.
    workdir: of the run.

  Returns:
    Nested dicts.

  Raises:
    ValueError: it is damaged, or of another stage or version.
  """
  try:
    content = json.loads((workdir / CONFIG).read_text())
    return config_changes.resolved(kind, content)
  except (ValueError, TypeError) as error:
    raise ValueError(
      f"{workdir} holds results, and {CONFIG} there is not of this stage and "
      f"version ({error}): use a new --workdir"
    ) from error


def _without_moved(
  changes: list[config_changes.Change], old: dict[str, str], new: dict[str, str]
) -> list[config_changes.Change]:
  """Without keys that name another place of the same content."""
  return [
    change
    for change in changes
    if not (change.key in old and old[change.key] == new.get(change.key))
  ]


def _refusal(workdir: epath.Path, changes: list[config_changes.Change]) -> str:
  key, old, new = changes[0]
  rest = ", ".join(change.key for change in changes[1:])
  others = f" (and {rest})" if rest else ""
  only = "; it may only grow" if key in config_changes.MAY_GROW else ""
  return (
    f"{workdir} holds a run that began with {key}={_short(old)}, and it is "
    f"{_short(new)} now{others}{only}: set it back to go on with that run, or "
    "use a new --workdir; docs/reliability.md lists what may change"
  )


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 80 else f"{text[:77]}..."


def _check_contents(
  workdir: epath.Path,
  config: dict[str, Any],
  old: dict[str, str],
  new: dict[str, str],
) -> None:
  """Refuses inputs that have changed in their places."""
  for key in sorted(old):
    if old[key] == new.get(key):
      continue
    value: Any = config
    for name in key.split("."):
      value = value.get(name) if isinstance(value, dict) else None
    raise ValueError(
      f"{workdir} holds a run that began with another content of "
      f"{key}={_short(value)}: its fingerprint was {old[key][:12]} and is "
      f"{new.get(key, 'none')[:12]} now; restore the files to go on with that "
      "run, or use a new --workdir"
    )


def _tell(changes: list[config_changes.Change], config: dict[str, Any]) -> None:
  for key, old, new in changes:
    log.info("%s was %s before and is %s now", key, _short(old), _short(new))
    if key in SERVERS:
      log.warning(
        "%s: whether that server gives the same rewards is not checked", key
      )
    schedule = config.get("optimizer", {}).get("schedule", "constant")
    if key in config_changes.MAY_GROW and schedule != "constant":
      log.warning(
        "the %s schedule now ends at %s %s; the steps done followed the one "
        "that ended at %s",
        schedule,
        key,
        new,
        old,
      )


def _warn_of_versions(
  workdir: epath.Path, held: dict[str, Any], new: dict[str, str]
) -> None:
  old = held.get("versions", new)
  for name in sorted({*old, *new}):
    if old.get(name) != new.get(name):
      log.warning(
        "%s began with %s %s and goes on with %s: numbers may differ",
        workdir,
        name,
        old.get(name, "(not installed)"),
        new.get(name, "(not installed)"),
      )


def same_rows(
  workdir: epath.Path, rows: str, *, start: int, main: bool
) -> None:
  """Refuses training data that is not read as when the run began.

  Files may be the same and their rows not: a data set on the hub, or another
  version of a library that reads or tokenises them.

  Args:
    workdir: of the run.
    rows: a fingerprint of the training data as it was read.
    start: steps done.
    main: whether this process writes.

  Raises:
    ValueError: the fingerprint of the first attempt is another one.
  """
  held = provenance.read(workdir)
  if start and held.get("rows", rows) != rows:
    raise ValueError(
      f"{workdir} holds a run whose training data read otherwise up to step "
      f"{start}: the fingerprint of its rows was {held['rows'][:12]} and is "
      f"{rows[:12]} now; restore the data, and the library versions in "
      f"{provenance.FILE}, to go on with that run, or use a new --workdir"
    )
  if main and held.get("rows") != rows:
    provenance.write(workdir, held | {"rows": rows})
