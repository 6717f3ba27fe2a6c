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


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
  if variant not in ("full", "smoke"):
    raise ValueError(f"variant must be 'full' or 'smoke', got {variant!r}")
  cfg = ml_collections.ConfigDict()

  cfg.source = dict(
    models=("runs/rm_bt_crowd/model",),
    function=ml_collections.config_dict.placeholder(str),  # "module:function"
    url=ml_collections.config_dict.placeholder(str),
    crowd=ml_collections.config_dict.placeholder(str),
    names=(),  # the models' own
    calibrated=True,
    risk=ml_collections.config_dict.placeholder(str),  # the model's own
    alpha=ml_collections.config_dict.placeholder(float),
    kappa=ml_collections.config_dict.placeholder(float),
    dtype="float32",
    batch_size=32,  # texts per forward over all devices
    buckets=(64, 128, 256, 512),  # padded lengths, one compilation each
    connection=dict(
      key_variable=ml_collections.config_dict.placeholder(str),
      concurrency=4,
      requests_per_minute=ml_collections.config_dict.placeholder(float),
      timeout_s=60.0,
      max_attempts=6,
      backoff_s=1.0,  # doubles
      max_backoff_s=60.0,
    ),
  )
  cfg.serve = dict(
    host="127.0.0.1",  # 0.0.0.0 to be reached from other machines
    port=8008,
    max_texts=1024,  # of a request
    max_bytes=16_000_000,  # of a request
    max_waiting=8192,  # texts; beyond them status 503
    max_waiting_bytes=64_000_000,  # of all requests; the same
    token_variable=ml_collections.config_dict.placeholder(str),  # no token
    linger_ms=5.0,
    shutdown_s=30,
  )
  cfg.mesh = dict(data=-1, fsdp=1, tensor=1, rules=())

  if variant == "smoke":
    cfg.source.update(models=(), crowd="two_groups")
    cfg.serve.port = 0
  return cfg
