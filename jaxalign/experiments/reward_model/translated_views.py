"""Back-translated views of the contrastive recipe, from a chat endpoint."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Mapping

from jaxalign.algorithms import contrastive
from jaxalign.data.batching import pair_dataset
from jaxalign.data.records.chat import Text
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.datasets import preferences
from jaxalign.experiments.llm_labels import back_translation
from jaxalign.runtime.distributed import multihost

log = logging.getLogger("jaxalign")


@dataclasses.dataclass(frozen=True)
class ContrastiveRecipeConfig(contrastive.ContrastiveConfig):
  """The contrastive recipe, and who makes its translated views.

  Attributes:
    translator: chat endpoint that translates responses there and back; set for
      augmentation "back_translation", None for others.
  """

  translator: back_translation.TranslatorConfig | None = None

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for values that do not go together."""
    super().__post_init__()
    translated = self.augmentation == "back_translation"
    if (self.translator is not None) != translated:
      given = "none" if self.translator is None else "one"
      raise ValueError(
        "translator must be an endpoint with augmentation='back_translation' "
        f"and None with others, got {given} with {self.augmentation!r}"
      )


class ViewStream:
  """The records of pairs with other responses, read whenever it is iterated."""

  def __init__(
    self, records: Iterable[Record], views: Mapping[Text, str]
  ) -> None:
    self._records = records
    self._views = views

  def __iter__(self) -> Iterator[Record]:
    """Each record; a response without another stays as it is."""
    for record in self._records:
      changed = tuple(self._views.get(r, r) for r in record.responses)
      yield dataclasses.replace(record, responses=changed)


def add_views(
  translator: back_translation.TranslatorConfig,
  data: preferences.DataConfig,
  pairs: preferences.Pairs,
  tokenizer: Tokenizer,
) -> preferences.Pairs:
  """The pairs with a back-translated view of each response.

  The first host asks, all others read what it has kept.

  Args:
    translator: the endpoint and its file.
    data: how texts become tokens.
    pairs: to be trained on.
    tokenizer: of the model.

  Returns:
    The pairs; a response that has no translation, as one of several turns, is
    its own view, and the report counts them as `untranslated_responses`.

  Raises:
    EndpointError: the endpoint refuses every question.
    ValueError: the estimate exceeds the budget, no response was translated, or
      a host does not see the file.
  """
  found = {r: None for record in pairs.records for r in record.responses}
  texts = [text for text in found if isinstance(text, str)]
  if multihost.is_main():
    try:
      made = back_translation.translate(translator, texts)
    finally:
      multihost.barrier("translations")
    log.info("translator: %s", made.counts)
  else:
    multihost.barrier("translations")
    made = back_translation.kept(translator, texts)
  views = {
    text: view
    for text, view in zip(texts, made.texts, strict=True)
    if view is not None
  }
  if not views:
    raise ValueError(
      f"recipe.translator: none of {len(texts)} responses has a translation in "
      f"{translator.file} ({made.counts}); does the model answer, and does "
      "every host see the file?"
    )
  lost = len(found) - len(views)
  if lost:
    log.warning("%d of %d responses stay as they are", lost, len(found))
  encoded = pair_dataset.encode_pairs(
    ViewStream(pairs.records, views),
    tokenizer,
    max_length=data.max_length,
    on_disk=data.streaming,
    processes=multihost.sharing(),
  )
  dataset = dataclasses.replace(pairs.dataset, views=encoded.sequences)
  report = {**pairs.report, "untranslated_responses": lost}
  return pairs._replace(dataset=dataset, report=report)
