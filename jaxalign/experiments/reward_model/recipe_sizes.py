"""Recipe sizes that the data decides: annotators, sources, groups."""

import dataclasses
from typing import Any, TypeVar

from jaxalign.data.batching import pair_dataset

T = TypeVar("T")

# Key of a recipe -> the column whose names in the training pairs it counts.
COUNTED = {
  "num_users": "annotator",
  "num_sources": "source",
  "num_groups": "group",
}


def uncounted(recipe: Any) -> list[str]:
  """The keys of a recipe that are to be counted in the training pairs."""
  return [key for key in _keys(recipe) if recipe.__dict__[key] is None]


def counted(recipe: T, dataset: pair_dataset.PairDataset) -> T:
  """The recipe with the sizes of its training pairs.

  Args:
    recipe: the `recipe` section.
    dataset: training pairs.

  Returns:
    The same with a number where a size was None.

  Raises:
    ValueError: a size of the config is not that of the pairs, or no pair names
      what is counted.
  """
  sizes = {}
  for key in _keys(recipe):
    column, given = COUNTED[key], recipe.__dict__[key]
    found = len(dataset.__getattribute__(f"{column}_names"))
    if not found:
      raise ValueError(
        f"recipe.{key} counts the {column}s of the training pairs, and no pair "
        f"has the column {column!r}"
      )
    if given not in (None, found):
      raise ValueError(
        f"recipe.{key} must be the number of {column}s in the training pairs, "
        f"got {given} and {found}; None counts them"
      )
    sizes[key] = found
  return dataclasses.replace(recipe, **sizes)  # type: ignore[type-var]


def _keys(recipe: Any) -> list[str]:
  fields = {field.name for field in dataclasses.fields(recipe)}
  return [key for key in COUNTED if key in fields]
