"""Trained adapters as PEFT folders, where PEFT can express what was trained."""

from typing import Any

from etils import epath

from jaxalign.experiments.common import model as backbone
from jaxalign.models import lora
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import peft
from jaxalign.runtime.io import filesystem


def fits(config: backbone.BackboneConfig, network: DecoderConfig) -> bool:
  """Whether adapters on `init_from` as it is are what was trained.

  PEFT puts adapters on the whole folder and reads its last token.
  """
  return config.layer is None and network.pooling == "last"


def save(
  path: epath.PathLike,
  config: backbone.BackboneConfig,
  network: DecoderConfig,
  adapters: lora.Adapters,
  base: Any,
) -> None:
  """Writes trained adapters as a PEFT folder, for `PeftModel` to load.

  Args:
    path: the folder.
    config: the `model` section, with `lora` set.
    network: the decoder's description.
    adapters: what was trained, on the host.
    base: the parameters they adapt, on the host.
  """
  origin = config.init_from or ""
  with filesystem.filled(path) as folder:
    peft.save_adapters(
      folder, adapters, base, network, config.lora, base=origin
    )
