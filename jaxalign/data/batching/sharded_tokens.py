"""Sharded token ids: each process holds the rows that it will show, no others.

Which rows a process shows depends on the lengths of all of them. So all records
pass by twice: first each process tokenises every P-th chunk and keeps lengths
alone, which are exchanged; then, once the order is known, it tokenises its own
rows and keeps them.
"""

import array
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jaxalign.data.batching import token_store
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization.encoding import Tokenise
from jaxalign.data.tokenization.tokenizer import Tokenizer


class Processes(NamedTuple):
  """Processes that share the tokenisation.

  Attributes:
    index: this process.
    count: all processes, P.
    gather: an array of the same shape and dtype from each, [...] -> [P, ...].
  """

  index: int
  count: int
  gather: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(eq=False)
class SharedSequences(token_store.Sequences):
  """Sequences whose lengths are all known; `hold` brings ids in.

  Attributes:
    records: what was encoded, read again by `hold`.
    tokenizer: what it was encoded with.
    tokenise: how.
    buffer: where ids go that come in.
  """

  records: Iterable[Record]
  tokenizer: Tokenizer
  tokenise: Tokenise
  buffer: token_store.Values

  def hold(self, numbers: np.ndarray) -> None:
    """Makes sure that some sequences are there, reading all records once.

    Args:
      numbers: which sequences, int [...]. The others of their records come too.

    Raises:
      ValueError: the records are not those of the first time.
    """
    wanted = np.zeros(len(self), np.bool_)
    wanted[numbers] = True
    wanted &= self.starts < 0
    if not wanted.any():
      return
    start = len(self.values)
    passing = self._records_of(wanted)
    size = lambda numbered: token_store.characters(numbered[1])
    for chunk in token_store.grouped(passing, size):
      found = self.tokenise(
        [record for _, record in chunk], self.tokenizer, self.max_length, 0
      )
      for (number, record), tokens in zip(chunk, found, strict=True):
        for at, ids in enumerate(tokens.ids, number):
          if len(ids) != self.lengths[at]:
            raise ValueError(
              f"sequence {at}, id {record.id}, has {len(ids)} tokens here and "
              f"{self.lengths[at]} on the process that counted them: all hosts "
              "must see the same files"
            )
          self.starts[at] = start
          self.buffer.buffer.extend(ids)
          start += len(ids)
      self.buffer.flush()
    if self.buffer.file is None:
      new = self.buffer.finish()
      self.buffer = token_store.Values(on_disk=False)
      self.values = np.concatenate([self.values, new])
    else:
      self.values = self.buffer.finish()

  def _records_of(self, wanted: np.ndarray) -> Iterator[tuple[int, Record]]:
    """Records of wanted sequences, each with the number of its first."""
    number = 0
    for record in self.records:
      stop = number + len(record.responses)
      if wanted[number:stop].any():
        yield number, record
      number = stop
    if number != len(self):
      raise ValueError(
        f"{len(self)} responses were counted, {number} are there now"
      )

  def __getitem__(self, number: int) -> np.ndarray:
    """Ids of one sequence, int32 [tokens]; it must be held."""
    self._check_held(np.asarray(number))
    return super().__getitem__(number)

  def padded(
    self, numbers: np.ndarray, length: int, pad_id: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """As of all sequences; these must be held."""
    self._check_held(numbers)
    return super().padded(numbers, length, pad_id)

  def _check_held(self, numbers: np.ndarray) -> None:
    missing = numbers[self.starts[numbers] < 0]
    if missing.size:
      raise ValueError(
        f"sequence {missing.flat[0]} is another process's: hold() it first"
      )


def encode_some(
  passing: Iterable[Record],
  records: Iterable[Record],
  tokenizer: Tokenizer,
  processes: Processes | None,
  *,
  max_length: int,
  on_disk: bool = False,
  tokenise: Tokenise | None = None,
) -> token_store.Sequences:
  """Like `token_store.encode`, with the work shared by several processes.

  Args:
    passing: the records, read once.
    records: the same, to be read again where the work is shared.
    tokenizer: from `load_tokenizer`.
    processes: that share the work, all of which must call this; None for one.
    max_length: bound on a sequence, markers included, in tokens.
    on_disk: keep the ids in a temporary file instead of memory.
    tokenise: as of `token_store.encode`.

  Returns:
    All sequences; or, where the work is shared, their lengths and no ids yet.

  Raises:
    ValueError: a bound that leaves no room for a token; no record.
  """
  if processes is None or processes.count == 1:
    return token_store.encode(
      passing,
      tokenizer,
      max_length=max_length,
      on_disk=on_disk,
      tokenise=tokenise,
    )
  tokenise = token_store.checked(tokenise, tokenizer, max_length)
  sizes, lengths, prompt_lengths = (array.array("i") for _ in range(3))
  cut = np.zeros(len(token_store.COUNTS), np.int64)
  for number, (start, chunk) in enumerate(token_store.chunks(passing)):
    sizes.append(sum(len(record.responses) for record in chunk))
    if number % processes.count != processes.index:
      continue
    for found in tokenise(chunk, tokenizer, max_length, start):
      lengths.extend(map(len, found.ids))
      prompt_lengths.extend(found.prompt_lengths)
      cut += (found.truncated_prompts, found.truncated_responses)
  if not sizes:
    raise ValueError("records must hold one or more, got none")
  mine = np.array([lengths, prompt_lengths], np.int32)
  whole = _exchange(mine, np.asarray(sizes), processes)
  total = processes.gather(cut).sum(axis=0).tolist()
  buffer = token_store.Values(on_disk)
  return SharedSequences(
    values=buffer.finish(),
    starts=np.full(whole.shape[1], -1),
    lengths=whole[0],
    prompt_lengths=whole[1],
    max_length=max_length,
    counts=dict(zip(token_store.COUNTS, total, strict=True)),
    records=records,
    tokenizer=tokenizer,
    tokenise=tokenise,
    buffer=buffer,
  )


def _exchange(
  mine: np.ndarray, sizes: np.ndarray, processes: Processes
) -> np.ndarray:
  """What all processes found, in the order of the records.

  Args:
    mine: what this one found, int32 [2, own sequences].
    sizes: sequences of each chunk, int [chunks].
    processes: who shares the work.

  Returns:
    int32 [2, all sequences].
  """
  owner = np.repeat(np.arange(len(sizes)) % processes.count, sizes)
  shares = np.bincount(owner, minlength=processes.count)
  sent = np.zeros((2, shares.max()), np.int32)
  sent[:, : mine.shape[1]] = mine
  whole = np.empty((2, len(owner)), np.int32)
  for process, found in enumerate(processes.gather(sent)):
    whole[:, owner == process] = found[:, : shares[process]]
  return whole
