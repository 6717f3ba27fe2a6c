"""Adapter registry: local folders, files in folders, and hub data sets."""

from jaxalign.data.adapters import (
  benchmarks,
  hub_flat,
  hub_threads,
  item_votes,
  local_ratings,
  local_texts,
  local_votes,
  personalized_soups,
  scored_texts,
)
from jaxalign.data.adapters.base import Adapter

# The vote share of these folders is no gap in reward units.
_SHARE = {"margin": "strength"}
_MODELS = ("chosen_model", "rejected_model")
_TURNS = ("n_turns", "multi_turn_divergence")

PLAIN = Adapter()

FOLDERS: dict[str, Adapter] = {
  "hh_helpful": Adapter(ignore=_TURNS, rename=_SHARE),
  "hh_harmless": Adapter(ignore=_TURNS, rename=_SHARE),
  "hhh_alignment": Adapter(rename=_SHARE),
  "llmbar": Adapter(rename=_SHARE),
  "humour": Adapter(ignore=("chosen_item", "rejected_item"), rename=_SHARE),
  "convarg": Adapter(ignore=("gold",), rename=_SHARE),
  "pandalm": Adapter(rename=_SHARE),
  "qa_feedback": Adapter(rename=_SHARE),
  "mt_bench": Adapter(ignore=(*_MODELS, "turn", "gpt4_prefers"), rename=_SHARE),
  "cnndm_summaries": Adapter(ignore=(*_MODELS, "margins"), rename=_SHARE),
}

ADAPTERS: dict[str, Adapter] = {
  "plain": PLAIN,
  **FOLDERS,
  **local_votes.ADAPTERS,
  **local_ratings.ADAPTERS,
  **local_texts.ADAPTERS,
  **item_votes.ADAPTERS,
  **hub_flat.ADAPTERS,
  **hub_threads.ADAPTERS,
  **benchmarks.ADAPTERS,
  **personalized_soups.ADAPTERS,
  **scored_texts.ADAPTERS,
}


def find(name: str) -> Adapter:
  """The adapter of a folder or hub name, else the plain schema."""
  return ADAPTERS.get(name, PLAIN)


def get(name: str) -> Adapter:
  """The adapter called `name`; ValueError lists the names there are."""
  if name not in ADAPTERS:
    raise ValueError(
      f"unknown adapter {name!r}; allowed: {', '.join(sorted(ADAPTERS))}"
    )
  return ADAPTERS[name]
