"""Config mapping: config.json to DecoderConfig and back.

`FAMILIES` has one table per checkpoint family, read in both directions. Code
here and in `param_map` reads the tables and knows no family by name.
"""

from collections.abc import Mapping
from typing import Any

from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import gated, rope_fields
from jaxalign.models.hf.family import Family, Field, Required
from jaxalign.models.hf.gemma import GEMMA2, GEMMA3
from jaxalign.models.hf.gpt import GPT2, NEOX, OPT
from jaxalign.models.hf.llama import (
  LLAMA,
  MISTRAL,
  OLMO2,
  PHI3,
  QWEN2,
  QWEN3,
  SMOLLM3,
)
from jaxalign.ops import checks

# In front of the `model_type` of a model that transformers has no class for, so
# that it refuses the folder instead of reading it in another way.
OWN = "jaxalign_"


def beyond_transformers(config: DecoderConfig) -> str | None:
  """What transformers cannot express of a config, in words; None for nothing.

  Args:
    config: any config.
  """
  if config.pooling != "last":
    return f"pooling={config.pooling!r}"
  if config.log_length == "keep":
    return f"log_length={config.log_length!r}"
  for name in ("mixed_layers", "head_units"):
    if getattr(config, name) is not None:
      return f"{name}={getattr(config, name)!r}"
  return None


def family_of(config: DecoderConfig) -> Family:
  """The family that a config names.

  Args:
    config: any config.

  Returns:
    Its row of `FAMILIES`.

  Raises:
    ValueError: the family is unknown, or a field has a value that the family
      hard-wires otherwise.
  """
  if config.family not in FAMILIES:
    raise ValueError(
      f"family must be one of {', '.join(FAMILIES)}, got {config.family!r}"
    )
  family = FAMILIES[config.family]
  for name, value in _evaluate(family.fixed, config).items():
    got = getattr(config, name)
    if got != value:
      raise ValueError(
        f"{name} of family {family.model_type} must be {value}, got {got}"
      )
  return family


def scratch_config(family: str, **fields: Any) -> DecoderConfig:
  """A config of a family for a model that starts from nothing.

  Args:
    family: a key of `FAMILIES`, such as "llama" or "gpt2".
    **fields: fields of DecoderConfig; those that the family hard-wires are set
      for you.

  Returns:
    The config, which `weights.save_pretrained` can write.

  Raises:
    ValueError: the family is unknown, a field is out of range or contradicts
      the family.
  """
  if family not in FAMILIES:
    raise ValueError(
      f"family must be one of {', '.join(FAMILIES)}, got {family!r}"
    )
  constants = {
    name: value
    for name, value in FAMILIES[family].fixed.items()
    if not callable(value)
  }
  config = DecoderConfig(**{"family": family} | constants | fields)
  family_of(config)
  return config


def family_defaults(family: str) -> dict[str, Any]:
  """What a config.json of a family means where it is silent.

  Args:
    family: a key of `FAMILIES`.

  Returns:
    Fields of DecoderConfig, without those that follow from other fields.

  Raises:
    ValueError: the family is unknown.
  """
  checks.one_of(FAMILIES, family=family)
  row = FAMILIES[family]
  found: dict[str, Any] = {}
  for field in row.fields:
    value = field.default
    if value is None or value is Required or callable(value):
      continue
    found |= dict.fromkeys(field.ours, _read(field, {}, family))
  if row.rope is not None:
    found |= rope_fields.read_rope(
      {}, row.rope, family, max_positions=found["max_positions"]
    )
  return found


def architecture(config: DecoderConfig) -> str:
  """Name of the transformers class that a config becomes.

  Args:
    config: of a known family.
  """
  family = family_of(config)
  return family.language if config.num_outputs is None else family.reward


def from_json(
  theirs: Mapping[str, Any], where: str, *, classifier: bool = False
) -> DecoderConfig:
  """The decoder that a config.json describes.

  Args:
    theirs: its content.
    where: its name, for errors.
    classifier: what the model is where `architectures` is silent.

  Returns:
    The config, with `num_outputs` set if the architecture is a classifier. An
    id of a marker that the embedding has no row for is left out: the model can
    neither read nor give it.

  Raises:
    ValueError: a field is missing, unknown, or has a value under which the
      network would not be ours; the error names it.
  """
  if gated.is_gated(theirs):
    theirs = gated.plain(theirs)
  model_type = theirs.get("model_type")
  if isinstance(model_type, str):
    model_type = model_type.removeprefix(OWN)
  if model_type not in tuple(FAMILIES):
    raise ValueError(
      f"{where}: model_type must be one of {', '.join(FAMILIES)}, got "
      f"{model_type!r}"
    )
  family = FAMILIES[model_type]
  _refuse_unknown(theirs, family, where)
  fields: dict[str, Any] = {"family": model_type}
  fields |= {k: v for k, v in family.fixed.items() if not callable(v)}
  for field in family.fields:
    value = _read(field, theirs, where)
    for name in field.ours:
      # Two of their fields may be one of ours.
      if fields.setdefault(name, value) != value:
        raise ValueError(
          f"{where}: {field.theirs} must be {fields[name]}, got {value}"
        )
  if family.rope is not None:
    fields |= rope_fields.read_rope(
      theirs, family.rope, where, max_positions=fields["max_positions"]
    )
  for name in ("pad_id", "bos_id", "eos_id"):
    fields[name] = _token_id(name, fields[name], fields["vocab_size"], where)
  fields["num_outputs"] = _num_outputs(theirs, family, where, classifier)
  try:
    config = DecoderConfig(**fields)
    family_of(config)
  except (TypeError, ValueError, OverflowError) as error:
    raise ValueError(f"{where}: {error}") from error
  return config


def to_json(config: DecoderConfig) -> dict[str, Any]:
  """The config.json of a config, as transformers 4 and 5 read it.

  Args:
    config: of a known family.

  Returns:
    A dict to be dumped. What transformers cannot express it is told by a
    `model_type` that it does not know.

  Raises:
    ValueError: the family cannot express the config, or a reward model has no
      `pad_id`, by which transformers finds a sequence's last token.
  """
  family = family_of(config)
  own = OWN if beyond_transformers(config) else ""
  theirs: dict[str, Any] = {
    "model_type": f"{own}{family.model_type}",
    "architectures": [architecture(config)],
    "dtype": config.param_dtype,
    "torch_dtype": config.param_dtype,
  }
  for field in family.fields:
    values = {getattr(config, name) for name in field.ours}
    if len(values) > 1:
      raise ValueError(
        f"{' and '.join(field.ours)} must be equal in family "
        f"{family.model_type}, which writes both as {field.theirs}"
      )
    value = values.pop()
    if field.optional and value == field.default:
      continue
    theirs[field.theirs] = _written(field, value, config)
  theirs |= _evaluate(family.written, config)
  if family.rope is not None:
    theirs |= rope_fields.write_rope(config, family.rope)
  if config.num_outputs is not None:
    if config.pad_id is None:
      raise ValueError(
        "pad_id must be set to save a reward model: transformers reads the "
        "reward at the last token that is not pad_token_id, got None"
      )
    labels = [f"LABEL_{i}" for i in range(config.num_outputs)]
    theirs["id2label"] = {str(i): label for i, label in enumerate(labels)}
    theirs["label2id"] = {label: i for i, label in enumerate(labels)}
  return theirs


def _written(field: Field, value: Any, config: DecoderConfig) -> Any:
  """A value of ours in their words."""
  if field.words is None:
    return value
  word = {ours: theirs for theirs, ours in reversed(field.words.items())}
  if not field.by_layer:
    return word[value]
  return [word[layer] for layer in value or (True,) * config.num_layers]


def _evaluate(
  values: Mapping[str, Any], config: DecoderConfig
) -> dict[str, Any]:
  """Constants as they are, functions at the config."""
  return {
    name: value(config) if callable(value) else value
    for name, value in values.items()
  }


def _refuse_unknown(
  theirs: Mapping[str, Any], family: Family, where: str
) -> None:
  """Nothing that could change the function may pass unread."""
  known = {field.theirs for field in family.fields} | family.ignored
  if family.rope is not None:
    known |= rope_fields.known_fields(family.rope)
  for name, value in theirs.items():
    if name in family.allowed:
      entries = value if isinstance(value, list) else [value]
      if value is not None and any(
        entry not in family.allowed[name] for entry in entries
      ):
        allowed = ", ".join(map(repr, family.allowed[name]))
        raise ValueError(f"{where}: {name} must be {allowed}, got {value!r}")
    elif name not in known and value is not None:
      raise ValueError(
        f"{where}: unknown field {name} = {value!r}; remove it if it does not "
        f"change what a {family.model_type} computes"
      )


def _read(field: Field, theirs: Mapping[str, Any], where: str) -> Any:
  value = theirs.get(field.theirs)
  if value is None:
    if field.default is Required:
      raise ValueError(f"{where}: {field.theirs} is missing")
    value = field.default
    if callable(value):
      try:
        value = value(theirs)
      except (ArithmeticError, LookupError, TypeError) as error:
        raise ValueError(
          f"{where}: {field.theirs} is missing, and does not follow from the "
          f"other fields: {error}"
        ) from error
  if field.words is not None:
    words = tuple(field.words)
    found = value if field.by_layer else [value]
    if not isinstance(found, list) or any(word not in words for word in found):
      many = "a list of" if field.by_layer else "one of"
      raise ValueError(
        f"{where}: {field.theirs} must be {many} {', '.join(map(str, words))}, "
        f"got {value!r}"
      )
    ours = tuple(field.words[word] for word in found)
    return ours if field.by_layer else ours[0]
  return tuple(value) if isinstance(value, list) else value


def _token_id(
  name: str, value: Any, vocab_size: Any, where: str
) -> int | tuple[int, ...] | None:
  """An id or ids, those outside the vocabulary left out."""
  ids = value if isinstance(value, tuple) else (value,)
  for token in ids:
    if isinstance(token, bool) or not isinstance(token, int | None):
      raise ValueError(f"{where}: {name} must be an int, got {value!r}")
  if not isinstance(vocab_size, int):
    return value
  kept = tuple(t for t in ids if t is not None and 0 <= t < vocab_size)
  return kept if isinstance(value, tuple) and kept else (*kept, None)[0]


def _num_outputs(
  theirs: Mapping[str, Any], family: Family, where: str, classifier: bool
) -> int | None:
  architectures = theirs.get("architectures") or [
    family.reward if classifier else family.language
  ]
  if architectures == [family.language]:
    return None
  if architectures == [family.reward]:
    # transformers writes neither for its default of two.
    labels = theirs.get("id2label")
    if labels is not None:
      if not isinstance(labels, dict):
        raise ValueError(f"{where}: id2label must be an object, got {labels!r}")
      return len(labels)
    number = theirs.get("num_labels")
    return 2 if number is None else number
  raise ValueError(
    f"{where}: architectures must be [{family.language!r}] or "
    f"[{family.reward!r}], got {architectures!r}"
  )


FAMILIES = {
  family.model_type: family
  for family in (
    LLAMA,
    GPT2,
    NEOX,
    OPT,
    MISTRAL,
    QWEN2,
    QWEN3,
    GEMMA2,
    GEMMA3,
    PHI3,
    SMOLLM3,
    OLMO2,
  )
}
