"""RoPE fields of a config.json: two places, several spellings."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxalign.models.config import DecoderConfig, RopeScaling
from jaxalign.models.hf.family import Rope

# Where both are there, transformers reads the older one alone.
ROPE_PLACES = ("rope_scaling", "rope_parameters")
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
  "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
  "yarn": ("factor",),
  "dynamic": ("factor",),
}
MSCALE = ("mscale", "mscale_all_dim")
OPTIONAL_KEYS = {
  "llama3": (CONTEXT,),
  "yarn": (
    CONTEXT,
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "truncate",
  ),
}
# Of yarn: two that transformers computes with, and two of the method's first
# implementation that it does not.
READ_KEYS = {"yarn": (*MSCALE, "attn_factor", "finetuned")}


def read_rope(
  theirs: Mapping[str, Any], names: Rope, where: str, *, max_positions: int
) -> dict[str, Any]:
  """Theta, scaling and share, as transformers finds them.

  Args:
    theirs: content of config.json.
    names: the family's older fields.
    where: name of the file, for errors.
    max_positions: longest sequence of the model, the original context where
      none is named.

  Returns:
    Fields of DecoderConfig.

  Raises:
    ValueError: two places disagree, a number is none, or the kind of scaling
      is not ours.
  """
  place = next((p for p in ROPE_PLACES if theirs.get(p)), ROPE_PLACES[-1])
  rope = _checked(theirs.get(place), place, where)
  read = _read_base(rope, theirs, names, where, place)
  _check_unread(read, theirs, place, where)
  older = rope.pop("type", "default")
  kind = rope.pop("rope_type", older)
  if kind not in tuple(ROPE_KEYS):
    raise ValueError(
      f"{where}: rope_type in {place} must be one of {', '.join(ROPE_KEYS)}, "
      f"got {kind!r}"
    )
  needed, allowed = set(ROPE_KEYS[kind]), set(OPTIONAL_KEYS.get(kind, ()))
  known = needed | allowed | set(READ_KEYS.get(kind, ()))
  if not needed <= set(rope) <= known:
    raise ValueError(
      f"{where}: {place} of rope_type {kind!r} must hold "
      f"{list(ROPE_KEYS[kind])} and may hold {sorted(allowed)}, got "
      f"{sorted(rope)}"
    )
  if kind != "default":
    read["rope_scaling"] = _read_scaling(
      kind, rope, max_positions, f"{where}: {place}"
    )
  return read


def _checked(rope: Any, place: str, where: str) -> dict[str, Any]:
  if not isinstance(rope or {}, dict):
    raise ValueError(f"{where}: {place} must hold an object, got {rope!r}")
  return dict(rope or {})


def _read_base(
  rope: dict[str, Any],
  theirs: Mapping[str, Any],
  names: Rope,
  where: str,
  place: str,
) -> dict[str, Any]:
  """Theta and share, taken out of the place or of the fields beside it."""

  def either(inner: str, outer: str, default: float) -> float:
    found = rope.pop(inner, None), theirs.get(outer)
    if None not in found and found[0] != found[1]:
      raise ValueError(
        f"{where}: {outer} is {found[1]} and {inner} in {place} {found[0]}"
      )
    return next((value for value in found if value is not None), default)

  read = {"rope_theta": either("rope_theta", names.theta, 10_000.0)}
  if names.fraction is not None:
    read["rotary_fraction"] = either(
      FRACTION, names.fraction, names.default_fraction
    )
  return read


def _check_unread(
  read: Mapping[str, Any], theirs: Mapping[str, Any], place: str, where: str
) -> None:
  """Raises ValueError if the place that is not read says something else."""
  other = ROPE_PLACES[1 - ROPE_PLACES.index(place)]
  unread = _checked(theirs.get(other), other, where)
  for key, ours in (
    ("rope_theta", "rope_theta"),
    (FRACTION, "rotary_fraction"),
  ):
    if unread.get(key) is not None and unread[key] != read.get(ours):
      raise ValueError(
        f"{where}: {key} is {unread[key]} in {other}, of which transformers "
        f"reads nothing beside {place}, and {read.get(ours)} without it; put "
        f"{key} into {place}"
      )


def _read_scaling(
  kind: str, rope: dict[str, Any], max_positions: int, where: str
) -> RopeScaling:
  """How wavelengths are stretched, with what transformers fills in."""
  longest = {"max_position_embeddings": max_positions}
  for key, value in (rope | longest).items():
    number = isinstance(value, (int, float))
    if value is not None and not (number and abs(value) < 1e300):
      raise ValueError(f"{where}: {key} must be a number, got {value!r}")
  found = {
    ours: rope[key]
    for key, ours in ROPE_WORDS.items()
    if rope.get(key) is not None
  }
  if kind in OPTIONAL_KEYS:
    found.setdefault("original_max_positions", max_positions)
  try:
    if kind == "yarn":
      found = _filled(found, rope, max_positions)
    if "factor" not in found:
      raise ValueError("factor must be a number, got None")
    return RopeScaling(kind, **found)
  except (TypeError, ValueError, ArithmeticError) as error:
    raise ValueError(f"{where}: {error}") from error


def _filled(
  found: dict[str, Any], rope: Mapping[str, Any], max_positions: int
) -> dict[str, Any]:
  """Fields of yarn: 0 is the default too, and nothing for `truncate` false."""
  kept = {
    key: value
    for key, value in found.items()
    if value or key not in ("beta_fast", "beta_slow")
  }
  kept["truncate"] = bool(rope.get("truncate", True))
  if "factor" not in kept:
    kept["factor"] = max_positions / kept["original_max_positions"]
  if "attention_factor" not in kept and all(rope.get(key) for key in MSCALE):
    over, under = (_mscale(kept["factor"], rope[key]) for key in MSCALE)
    kept["attention_factor"] = over / under
  return kept


def _mscale(factor: float, weight: float) -> float:
  return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


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
