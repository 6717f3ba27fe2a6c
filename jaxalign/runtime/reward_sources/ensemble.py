"""Ensemble reward source: several models of one reward, less their spread.

Where the models have learned from the same answers they agree; on answers that
are unlike those they differ, each in its own way. A policy that is trained
towards the mean less k deviations finds nothing to gain there.
"""

from collections.abc import Sequence

import numpy as np

from jaxalign.data.records.chat import Text
from jaxalign.ops import checks
from jaxalign.runtime.reward_sources import base


def lower_bound(rewards: np.ndarray, pessimism: float) -> np.ndarray:
  """Mean over models less k of their standard deviations.

    mean_m r_m − k sqrt(Σ_m (r_m − mean)² / (M − 1))

  Args:
    rewards: of M >= 2 models, in one unit, [M, ...].
    pessimism: k >= 0; 0 is the mean.

  Returns:
    float64 [...].

  References:
    Coste et al., "Reward model ensembles help mitigate overoptimization", 2023;
    they subtract the variance.
  """
  rewards = np.asarray(rewards, np.float64)
  return rewards.mean(axis=0) - pessimism * rewards.std(axis=0, ddof=1)


class EnsembleSource:
  """The models of an ensemble as one source, see `lower_bound`.

  Attributes:
    names: of the outputs, the same as each model has.
    mixture_weights: None; the latent groups of two models have no common order.
    units: None; no model has measured this reward.
  """

  mixture_weights: tuple[float, ...] | None = None
  units: tuple[float, ...] | None = None

  def __init__(
    self,
    sources: Sequence[base.RewardSource],
    pessimism: float,
    *,
    names: tuple[str, ...] = (),
  ) -> None:
    """Checks that the models are of one kind.

    Args:
      sources: M >= 2 models, whose rewards are in one unit.
      pessimism: k >= 0, see `lower_bound`.
      names: of the outputs, in place of the models' own.

    Raises:
      ValueError: one model, or models with other outputs or of latent groups.
    """
    checks.at_least(0, pessimism=pessimism)
    if len(sources) < 2:
      raise ValueError(
        "pessimism takes the spread of 2 or more models, got "
        f"{len(sources)}: name more in `models`, or leave it None"
      )
    own = sources[0].names
    for source in sources:
      if source.names != own:
        raise ValueError(
          "models of an ensemble must have the same outputs, got "
          f"{', '.join(own)} and {', '.join(source.names)}"
        )
      if len(own) > 1 and source.mixture_weights is not None:
        raise ValueError(
          "models of an ensemble must not have latent groups, whose order is "
          f"another in each, got {', '.join(own)} with mixture_weights"
        )
    if names and len(names) != len(own):
      raise ValueError(
        f"names must name the {len(own)} outputs {', '.join(own)}, got "
        f"{len(names)}: {', '.join(names)}"
      )
    self.names = names if names else own
    self.sources = tuple(sources)
    self.pessimism = pessimism

  def __call__(
    self,
    prompts: Sequence[base.Prompt],
    responses: Sequence[Text],
    columns: base.Columns | None = None,
  ) -> np.ndarray:
    """Rewards of B responses, float32 [B, K]; see `RewardSource`."""
    parts = [source(prompts, responses, columns) for source in self.sources]
    return lower_bound(np.stack(parts), self.pessimism).astype(np.float32)
