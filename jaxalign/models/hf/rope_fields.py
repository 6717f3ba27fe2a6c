"""RoPE fields of a config.json: two places, several spellings.

A family whose layers with a window rotate by a base of their own has one set of
fields for each kind of layer inside `rope_parameters`.
"""

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
  "short_factor": "short_factor",
  "long_factor": "long_factor",
}
CONTEXT = "original_max_position_embeddings"
ROPE_KEYS = {
  "default": (),
  "linear": ("factor",),
  "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
  "yarn": ("factor",),
  "dynamic": ("factor",),
  "longrope": ("short_factor", "long_factor"),
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
  "longrope": (CONTEXT, "factor", "attention_factor"),
}
WINDOWED, OTHERS = "sliding_attention", "full_attention"
# Of yarn: two that transformers computes with, and two of the method's first
# implementation that it does not.
READ_KEYS = {"yarn": (*MSCALE, "attn_factor", "finetuned")}


def known_fields(names: Rope) -> set[str | None]:
  """Fields of config.json that are read here.

  Args:
    names: the family's older fields.
  """
  beside = {names.theta, names.fraction, names.local_theta, names.context}
  return {*ROPE_PLACES} | beside


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
  if names.local_theta is not None:
    return _read_by_kind(theirs, names, where, max_positions)
  place = next((p for p in ROPE_PLACES if theirs.get(p)), ROPE_PLACES[-1])
  rope = _checked(theirs.get(place), place, where)
  read = _read_base(rope, theirs, names, where, place)
  _check_unread(read, theirs, place, where)
  older = rope.pop("type", "default")
  kind = rope.pop("rope_type", older)
  kinds = names.kinds or {each: each for each in ROPE_KEYS}
  if kind not in tuple(kinds):
    raise ValueError(
      f"{where}: rope_type in {place} must be one of {', '.join(kinds)}, "
      f"got {kind!r}"
    )
  kind = kinds[kind]
  if names.context is not None and CONTEXT in OPTIONAL_KEYS.get(kind, ()):
    outer = theirs.get(names.context)
    rope[CONTEXT] = names.default_context if outer is None else outer
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

  read = {"rope_theta": either("rope_theta", names.theta, names.default_theta)}
  if names.fraction is not None:
    read["rotary_fraction"] = either(
      FRACTION, names.fraction, names.default_fraction
    )
  return read


def _read_by_kind(
  theirs: Mapping[str, Any], names: Rope, where: str, max_positions: int
) -> dict[str, Any]:
  """`read_rope` of a family with a rotation for each kind of layer."""
  scaling, by_kind = (_checked(theirs.get(p), p, where) for p in ROPE_PLACES)
  if not set(by_kind) <= {WINDOWED, OTHERS}:
    raise ValueError(
      f"{where}: rope_parameters must hold {OTHERS} and {WINDOWED}, got "
      f"{sorted(by_kind)}"
    )
  inner = {
    kind: _checked(by_kind.get(kind), f"rope_parameters.{kind}", where)
    for kind in (OTHERS, WINDOWED)
  }
  # The older place changes the rotation of layers without a window alone.
  whole = inner[OTHERS] | scaling
  if "type" in scaling and "rope_type" not in scaling:
    whole["rope_type"] = scaling["type"]
  rest = {k: v for k, v in theirs.items() if k not in ROPE_PLACES}
  flat = names._replace(local_theta=None)
  read = read_rope(
    rest | {"rope_parameters": whole}, flat, where, max_positions=max_positions
  )
  local = inner[WINDOWED]
  if local and local == whole:
    return read
  beside = theirs.get(names.local_theta)
  beside = 10_000.0 if beside is None else beside
  theta = local.pop("rope_theta", None)
  if local.pop("rope_type", "default") != "default" or local:
    raise ValueError(
      f"{where}: rope_parameters.{WINDOWED} must hold rope_theta alone, of "
      f"rope_type 'default', got {inner[WINDOWED]}"
    )
  return read | {"local_rope_theta": beside if theta is None else theta}


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
    listed = key in ROPE_KEYS["longrope"]
    values = value if listed and isinstance(value, list) else [value]
    number = not listed or isinstance(value, list)
    for each in values:
      number &= isinstance(each, (int, float)) and abs(each) < 1e300
    if value is not None and not number:
      what = "a list of numbers" if listed else "a number"
      raise ValueError(f"{where}: {key} must be {what}, got {value!r}")
  found = {
    ours: tuple(rope[key]) if isinstance(rope[key], list) else rope[key]
    for key, ours in ROPE_WORDS.items()
    if rope.get(key) is not None
  }
  if kind in OPTIONAL_KEYS:
    found.setdefault("original_max_positions", max_positions)
  try:
    if kind == "yarn":
      found = _filled(found, rope, max_positions)
    if kind == "longrope":
      ratio = max_positions / found["original_max_positions"]
      found["factor"] = max(found.get("factor", ratio), 1.0)
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


def _plain(value: Any) -> Any:
  """As JSON gives it back."""
  return list(value) if isinstance(value, tuple) else value


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
      key: _plain(kept[ROPE_WORDS[key]])
      for key in (*ROPE_KEYS[kind], *OPTIONAL_KEYS.get(kind, ()))
      if kept[ROPE_WORDS[key]] is not None
    }
  whole = rope | {"rope_theta": config.rope_theta}
  older: dict[str, Any] = {names.theta: config.rope_theta}
  if names.context is not None:
    context = rope.get(CONTEXT, config.max_positions)
    older[names.context] = context
  if names.fraction is not None:
    whole[FRACTION] = config.rotary_fraction
    older[names.fraction] = config.rotary_fraction
  scaling = None if config.rope_scaling is None else rope
  if names.local_theta is not None:
    local = whole
    if config.local_rope_theta is not None:
      theta = config.local_rope_theta
      local = {"rope_type": "default", "rope_theta": theta}
      older[names.local_theta] = theta
    whole = {OTHERS: whole, WINDOWED: local}
  return {"rope_parameters": whole, "rope_scaling": scaling} | older
