"""What to change in a config whose step does not fit its devices."""

import math
from collections.abc import Mapping
from typing import Any

STATE_SHARE = 0.5  # of a device that parameters and optimiser may take


def _next_remat(remat: str) -> str | None:
  """The policy that keeps less, None if nothing keeps less."""
  return {"none": "dots", "dots": "full"}.get(remat)


def _rows_per_device(config: Mapping[str, Any], mesh: Mapping[str, int]) -> int:
  train = config["train"]
  if "num_prompts" in train:  # of a policy's iteration
    rows = train["num_prompts"] // config["policy"]["minibatches"]
  else:
    rows = train["batch_size"]
  return rows // train["accumulation"] // (mesh["data"] * mesh["fsdp"])


def suggestions(
  config: Mapping[str, Any],
  mesh: Mapping[str, int],
  memory: Mapping[str, int],
  limit: int,
) -> list[str]:
  """Flags that make a program smaller, the cheapest in time first.

  They are estimates: state divides by the shards, temporaries by the rows of a
  micro-batch. Compile again with them.

  Args:
    config: of the stage, as a nested dict; keys of other stages may be absent.
    mesh: devices per mesh axis.
    memory: bytes per device by part, with "parameters", "optimizer" and
      "total".
    limit: bytes that a device has.

  Returns:
    Phrases that name a flag and what it is to do; none if the program fits.
  """
  if memory["total"] <= limit:
    return []
  found = []
  state = memory["parameters"] + memory.get("optimizer", 0)
  rest = memory["total"] - state
  shards = mesh["fsdp"] * mesh["tensor"]
  spare = mesh["data"]
  factor = 1
  while state / factor > STATE_SHARE * limit and factor < spare:
    factor *= 2
  if factor > 1:
    found.append(
      f"--config.mesh.fsdp={mesh['fsdp'] * factor}: parameters and optimiser "
      f"take {_gib(state)} per device, then {_gib(state / factor)}"
    )
  room = limit - state / factor
  if rest > room > 0:
    found += _smaller_temporaries(config, mesh, rest / room)
  if state / factor > limit:
    found.append(
      f"more devices: parameters and optimiser alone take "
      f"{_gib(state / factor)} of {_gib(limit)} on each of {shards * factor}"
    )
  return found or ["more devices, or shorter sequences"]


def _smaller_temporaries(
  config: Mapping[str, Any], mesh: Mapping[str, int], excess: float
) -> list[str]:
  """What shrinks activations, which are `excess` times too large."""
  found = []
  model = config.get("model", {})
  remat = _next_remat(model.get("remat", "full"))
  if remat is not None:
    found.append(
      f"--config.model.remat={remat}: the backward pass computes again what it "
      "does not keep"
    )
  if model.get("attention") == "dense":
    found.append(
      "--config.model.attention=splash: no weights of all pairs of positions "
      "(TPU only)"
    )
  if "train" in config:
    rows = _rows_per_device(config, mesh)
    pieces = next(
      (n for n in range(2, rows + 1) if rows % n == 0 and n >= excess), rows
    )
    if pieces > 1:
      found.append(
        f"--config.train.accumulation="
        f"{config['train']['accumulation'] * pieces}: micro-batches of "
        f"{rows // pieces} rows per device instead of {rows}"
      )
  elif "eval" in config:
    size = config["eval"]["batch_size"]
    pieces = math.ceil(excess)
    found.append(
      f"--config.eval.batch_size={max(size // pieces, 1)}: fewer rows at once"
    )
  return found


def _gib(number: float) -> str:
  return f"{number / 2**30:.2f} GiB"
