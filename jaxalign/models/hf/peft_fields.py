"""Fields of PEFT's adapter_config.json: an allow-list with checks.

PEFT has dozens of fields, and new ones every year, of which many change what an
adapter computes. So the fields are an allow-list: one that is not in it ends
the reading by name.
"""

import pathlib
import re
from typing import Any, NamedTuple

from jaxalign.models.hf import json_files

CONFIG = "adapter_config.json"
# Fields -> values under which the difference is alpha / r times A B, added to
# the base as it is; of a list, every entry must be among them. Null is PEFT's
# default, which is always ours.
ALLOWED: dict[str, tuple[Any, ...]] = {
  "alora_invocation_tokens": (),
  "arrow_config": (),
  "bias": ("none",),
  "ensure_weight_tying": (False,),
  # Those that are left out here take a part out of the base on loading.
  "init_lora_weights": (
    True,
    False,
    "gaussian",
    "eva",
    "orthogonal",
    "mica",
  ),
  "kasa_config": (),
  "layer_replication": (),
  "layers_pattern": (),
  "layers_to_transform": (),
  "lora_bias": (False,),
  "megatron_config": (),
  "modules_to_save": ("score", "classifier"),
  "monteclora_config": (),
  "peft_type": ("LORA",),
  "rank_pattern": ({},),
  "alpha_pattern": ({},),
  "target_parameters": (),
  "task_type": ("SEQ_CLS", "CAUSAL_LM"),
  "trainable_token_indices": (),
  "use_bdlora": (),
  "use_dora": (False,),
  "use_qalora": (False,),
  "use_rslora": (False,),
  "velora_config": (),
}
# How the adapters were made and trained, and where from.
IGNORED = frozenset(
  {
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "fan_in_fan_out",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "merge_weights",
    "peft_version",
    "qalora_group_size",
    "revision",
  }
)
READ = frozenset({"r", "lora_alpha", "target_modules", "exclude_modules"})
REMEDY = (
  "let PEFT add the adapters to their base (merge_and_unload), and load the "
  "folder of the whole model"
)
ALL_LINEAR = "all-linear"


class Adapter(NamedTuple):
  """What is read of the file.

  Attributes:
    rank: r.
    alpha: numerator of the scale.
    saves_head: the score head is in the adapter's file as a whole.
    targets: suffixes of module names, or a pattern of whole names.
    excluded: likewise, modules that are not adapted.
  """

  rank: int
  alpha: float
  saves_head: bool
  targets: list[str] | str
  excluded: list[str] | str

  def selects(self, module: str) -> bool:
    """Whether PEFT adapts the module of this name, a projection in a layer."""
    if _matches(self.excluded, module):
      return False
    if self.targets == ALL_LINEAR:
      return True
    return _matches(self.targets, module)


def read(folder: pathlib.Path) -> Adapter:
  """The config of an adapter folder.

  Args:
    folder: what PEFT, or `peft.save_adapters`, wrote.

  Returns:
    What decides the adapters' function.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no JSON object, or a field is missing, unknown or has a
      value under which the adapters would compute something else.
  """
  file = folder / CONFIG
  described = json_files.read_object(file)
  if described.get("peft_type") is None:
    raise ValueError(f"{file}: peft_type must be 'LORA', got None")
  for name, value in described.items():
    _check_field(name, value, str(file))
  rank, alpha = described.get("r"), described.get("lora_alpha")
  if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
    raise ValueError(f"{file}: r must be an int >= 1, got {rank!r}")
  number = isinstance(alpha, (int, float)) and not isinstance(alpha, bool)
  if not number or not 0 < alpha < float("inf"):
    raise ValueError(f"{file}: lora_alpha must be a number > 0, got {alpha!r}")
  targets = described.get("target_modules")
  if isinstance(targets, str) and targets.lower() == ALL_LINEAR:
    targets = ALL_LINEAR
  excluded = described.get("exclude_modules")
  return Adapter(
    rank,
    float(alpha),
    "score" in (described.get("modules_to_save") or []),
    _checked_names(targets, "target_modules", str(file)),
    _checked_names(excluded or [], "exclude_modules", str(file)),
  )


def _check_field(name: str, value: Any, file: str) -> None:
  if value is None or name in READ or name in IGNORED:
    return
  if name not in ALLOWED:
    raise ValueError(
      f"{file}: unknown field {name} = {value!r}, under which adapters may "
      f"compute something else; {REMEDY}"
    )
  entries = value if isinstance(value, list) else [value]
  if any(entry not in ALLOWED[name] for entry in entries):
    words = " or ".join(map(repr, ALLOWED[name])) or "empty"
    raise ValueError(f"{file}: {name} must be {words}, got {value!r}; {REMEDY}")


def _checked_names(value: Any, name: str, file: str) -> list[str] | str:
  if isinstance(value, str):
    try:
      re.compile(value)
    except re.error as error:
      raise ValueError(
        f"{file}: {name} is not a regular expression ({error}), got {value!r}"
      ) from error
    return value
  if not isinstance(value, list) or not all(
    isinstance(entry, str) for entry in value
  ):
    raise ValueError(
      f"{file}: {name} must be a list of module names or a pattern, got "
      f"{value!r}"
    )
  return value


def _matches(names: list[str] | str, module: str) -> bool:
  if isinstance(names, str):
    return re.fullmatch(names, module) is not None
  return any(module == name or module.endswith(f".{name}") for name in names)
