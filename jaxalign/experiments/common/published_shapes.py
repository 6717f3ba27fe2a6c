"""Published model sizes: decoders by name, where their files are not at hand.

A step of a paper's experiment is compiled at these sizes from scratch.
"""

from collections.abc import Mapping
from typing import Any

_LLAMA_7B = dict(
  num_layers=32,
  num_heads=32,
  embed_dim=4096,
  mlp_dim=11008,
  vocab_size=32_000,
  tie_embeddings=False,
)
_NEOX = dict(family="gpt_neox", vocab_size=50_304)
_OPT = dict(family="opt", num_layers=32, num_heads=32, vocab_size=50_272)
# Fields of `model.Architecture` by the name of a model, "tiny" for smoke runs.
SHAPES: Mapping[str, Mapping[str, Any]] = {
  "gpt2": dict(
    family="gpt2",
    num_layers=12,
    num_heads=12,
    embed_dim=768,
    mlp_dim=3072,
    vocab_size=50_257,
  ),
  "llama-7b": _LLAMA_7B,
  "llama-2-7b": _LLAMA_7B,
  "llama-2-13b": dict(
    _LLAMA_7B, num_layers=40, num_heads=40, embed_dim=5120, mlp_dim=13824
  ),
  "llama-2-70b": dict(
    _LLAMA_7B,
    num_layers=80,
    num_heads=64,
    num_kv_heads=8,
    embed_dim=8192,
    mlp_dim=28672,
  ),
  "opt-2.7b": dict(_OPT, embed_dim=2560, mlp_dim=10240),
  "opt-6.7b": dict(_OPT, embed_dim=4096, mlp_dim=16384),
  "tiny": dict(num_layers=1, num_heads=4, embed_dim=32, mlp_dim=64),
  "pythia-1.4b": dict(
    _NEOX, num_layers=24, num_heads=16, embed_dim=2048, mlp_dim=8192
  ),
  "pythia-2.8b": dict(
    _NEOX, num_layers=32, num_heads=32, embed_dim=2560, mlp_dim=10240
  ),
  "qwen3-8b": dict(
    family="qwen3",
    num_layers=36,
    num_heads=32,
    num_kv_heads=8,
    embed_dim=4096,
    mlp_dim=12288,
    vocab_size=151_936,
    tie_embeddings=False,
  ),
}
