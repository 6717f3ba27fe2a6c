"""How a config.json says that heads are rotated: two places, several words."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxalign.models.config import DecoderConfig, RopeScaling
from jaxalign.models.family import Rope

ROPE_PLACES = ("rope_parameters", "rope_scaling")
FRACTION = "partial_rotary_factor"
ROPE_WORDS = {
  "factor": "factor",
  "low_freq_factor": "low_freq_factor",
  "high_freq_factor": "high_freq_factor",
  "original_max_position_embeddings": "original_max_positions",
  "beta_fast": "beta_fast",
  "beta_slow": "beta_slow",
  "attention_factor": "attention_factor",
  "truncate": "truncate",
}
CONTEXT = "original_max_position_embeddings"
ROPE_KEYS = {
  "default": (),
  "linear": ("factor",),
  "llama3": ("factor", "low_freq_factor", "high_freq_factor", CONTEXT),
  "yarn": ("factor", CONTEXT),
  "dynamic": ("factor",),
}
OPTIONAL_KEYS = {
  "yarn": ("beta_fast", "beta_slow", "attention_factor", "truncate")
}


def read_rope(
  theirs: Mapping[str, Any], names: Rope, where: str
) -> dict[str, Any]:
  """Theta, scaling and share, from `rope_parameters` or the older fields.

  Args:
    theirs: content of config.json.
    names: the family's older fields.
    where: name of the file, for errors.

  Returns:
    Fields of DecoderConfig.

  Raises:
    ValueError: two places disagree, or the kind of scaling is not ours.
  """
  place = next((p for p in ROPE_PLACES if theirs.get(p)), ROPE_PLACES[0])
  rope = dict(theirs.get(place) or {})

  def either(inner: str, outer: str, default: float) -> float:
    found = rope.pop(inner, None), theirs.get(outer)
    if None not in found and found[0] != found[1]:
      raise ValueError(
        f"{where}: {outer} is {found[1]} and {inner} in {place} {found[0]}"
      )
    return next((value for value in found if value is not None), default)

  read: dict[str, Any] = {
    "rope_theta": either("rope_theta", names.theta, 10_000.0)
  }
  if names.fraction is not None:
    read["rotary_fraction"] = either(
      FRACTION, names.fraction, names.default_fraction
    )
  older = rope.pop("type", "default")
  kind = rope.pop("rope_type", older)
  if kind not in ROPE_KEYS:
    raise ValueError(
      f"{where}: rope_type in {place} must be one of {', '.join(ROPE_KEYS)}, "
      f"got {kind!r}"
    )
  needed, allowed = set(ROPE_KEYS[kind]), set(OPTIONAL_KEYS.get(kind, ()))
  if not needed <= set(rope) <= needed | allowed:
    raise ValueError(
      f"{where}: {place} of rope_type {kind!r} must hold "
      f"{list(ROPE_KEYS[kind])} and may hold {sorted(allowed)}, got "
      f"{sorted(rope)}"
    )
  if kind != "default":
    ours = {
      ROPE_WORDS[key]: value for key, value in rope.items() if value is not None
    }
    read["rope_scaling"] = RopeScaling(kind, **ours)
  return read


def write_rope(config: DecoderConfig, names: Rope) -> dict[str, Any]:
  """Both forms: transformers 5 reads the first, older readers the others.

  Args:
    config: of a rotary decoder.
    names: the family's older fields.

  Returns:
    Fields of config.json.
  """
  rope: dict[str, Any] = {"rope_type": "default"}
  if config.rope_scaling is not None:
    kept = dataclasses.asdict(config.rope_scaling)
    kind = kept["kind"]
    rope = {"rope_type": kind} | {
      key: kept[ROPE_WORDS[key]]
      for key in (*ROPE_KEYS[kind], *OPTIONAL_KEYS.get(kind, ()))
      if kept[ROPE_WORDS[key]] is not None
    }
  whole = rope | {"rope_theta": config.rope_theta}
  older: dict[str, Any] = {names.theta: config.rope_theta}
  if names.fraction is not None:
    whole[FRACTION] = config.rotary_fraction
    older[names.fraction] = config.rotary_fraction
  scaling = None if config.rope_scaling is None else rope
  return {"rope_parameters": whole, "rope_scaling": scaling} | older
