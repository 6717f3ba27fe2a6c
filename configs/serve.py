r"""What would this reward model say of texts that are made elsewhere?

  python -m jaxalign.experiments.serve --config=configs/serve.py \
      --config.source.models="('runs/rm_bt_crowd/model',)" --workdir=runs/serve

`POST /v1/rewards` takes prompts with responses and gives calibrated rewards per
output and the groups' weights; `GET /health` says how busy the server is.
docs/serving.md has both, and `source.url` of another run is such a server.
`:smoke` serves the true utilities of the synthetic crowd on a free port.

Measured: whatever it is given.
"""

import ml_collections

VARIANTS = ("full", "smoke")


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"variant must be one of {VARIANTS}, got {variant!r}")
  cfg = ml_collections.ConfigDict()
  cfg.source = dict(models=("runs/rm_bt_crowd/model",), batch_size=32)
  cfg.source.update(buckets=(64, 128, 256, 512))

  if variant == "smoke":
    cfg.source.update(models=(), crowd="two_groups")
    cfg.serve = dict(port=0)
  return cfg
