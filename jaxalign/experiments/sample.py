r"""Sampling from a language model: a file of k responses per prompt.

python -m jaxalign.experiments.sample --config=configs/sample.py \
    --config.model=runs/sft_crowd/model --workdir=runs/sample
"""

import dataclasses
import json
import logging
from typing import Any

import jax
import numpy as np
from etils import epath

from jaxalign import models
from jaxalign.data.batching import prompt_dataset as prompt_rows
from jaxalign.data.records import reader, refusals
from jaxalign.data.records.chat import Text
from jaxalign.data.tokenization import tokenizer_files, turns
from jaxalign.data.tokenization.tokenizer import Tokenizer
from jaxalign.experiments.common import cli, summary
from jaxalign.experiments.common import model as backbone
from jaxalign.experiments.policy import sampling
from jaxalign.models import heads
from jaxalign.models.config import DecoderConfig
from jaxalign.models.hf import weights
from jaxalign.ops import checks
from jaxalign.runtime.distributed import mesh as meshes
from jaxalign.runtime.distributed import multihost
from jaxalign.runtime.io import filesystem, progress_bar

log = logging.getLogger("jaxalign")
FILE = "responses.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """Everything `sample` reads.

  Attributes:
    seed: of the samples; a prompt's depend on nothing else but its number.
    files: sources whose prompts are answered, each once, whatever responses
      their records have, if any.
    limit: prompts that are answered, from the first on; None for all.
    on_bad_record: "error" or "skip" (counted).
    extra_columns: columns beyond the schema to ignore.
    crowd_seed: seed of synthetic sources.
    model: a language model's folder, with its tokenizer.
    dtype: compute type, "float32" or "bfloat16".
    num_responses: k, per prompt.
    batch_size: responses sampled at once over all devices, a multiple of k.
    max_prompt_length: tokens of a prompt; longer ones lose their beginning.
    max_new_tokens: tokens of a response.
    temperature: of the samples, >= 0.
    top_p: mass of the likeliest tokens that is kept; None for all.
    repetition_penalty: of tokens that are there already; 1 is none.
    mesh: devices.
    end_ids: tokens that end a response beside the ends of the model's folder,
      as those that the policy was trained with.
  """

  seed: int = 0
  files: tuple[str, ...]
  limit: int | None = None
  on_bad_record: str = "error"
  extra_columns: tuple[str, ...] = ()
  crowd_seed: int = 0
  model: str
  dtype: str = "float32"
  num_responses: int = 5
  batch_size: int = 80
  max_prompt_length: int
  max_new_tokens: int
  temperature: float = 0.8
  top_p: float | None = 0.9
  repetition_penalty: float = 1.1
  mesh: meshes.MeshConfig = meshes.MeshConfig()
  end_ids: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    """Raises ValueError, by name, for a value out of range."""
    checks.at_least(
      1,
      num_responses=self.num_responses,
      batch_size=self.batch_size,
      max_prompt_length=self.max_prompt_length,
    )
    if self.batch_size % self.num_responses:
      raise ValueError(
        f"batch_size must be a multiple of num_responses, got "
        f"{self.batch_size} and {self.num_responses}"
      )
    if self.limit is not None and self.limit < 1:
      raise ValueError(f"limit must be >= 1 or None, got {self.limit}")


def run(config: Config, workdir: epath.Path) -> None:
  """Writes `responses.jsonl`, one record a line, going on where it stopped.

  Args:
    config: the resolved config.
    workdir: gets the file. Its responses are in no order: they are for what
      learns without labels, or to be labelled.
  """
  mesh = meshes.make_mesh(config.mesh)
  meshes.check_batch(config.batch_size, 1, mesh)
  folder = filesystem.resolved(config.model)
  tokenizer = tokenizer_files.load_tokenizer(folder)
  network = _network(config, folder)
  tokenizer.check_embedded(network.vocab_size, folder)
  ends = sampling.ends_of(config.end_ids, tokenizer, network)
  model = heads.causal_lm(network)
  shardings = meshes.parameter_shardings(
    model.axes, backbone.abstract_params(model), mesh, config.mesh.rules
  )
  params = weights.load_params(folder, network, shardings=shardings)
  prompts = _prompts(config, tokenizer)
  path = workdir / FILE
  done = _finished(path)
  log.info("%d prompts, %d answered by an earlier run", len(prompts), done)
  share = config.batch_size // config.num_responses
  file = filesystem.AppendedFile(path) if multihost.is_main() else None
  starts = range(done, len(prompts), share)
  for start in progress_bar.watched(
    starts, total=len(starts), what="sampling batches"
  ):
    numbers = range(start, min(start + share, len(prompts)))
    texts = _answers(
      config,
      network,
      params,
      tokenizer,
      ends,
      [(n, prompts[n]) for n in numbers],
      mesh,
    )
    if file is not None:
      rows = zip((prompts[n] for n in numbers), texts, strict=True)
      for prompt, responses in rows:
        file.write(_line(prompt, responses))
  if file is not None:
    file.close()
  multihost.barrier("sample")
  summary.say(
    [f"{config.num_responses} responses to each of {len(prompts):,} prompts"],
    responses=path,
    then=summary.command(
      "personas", "personas", f"--config.data.train_files={(str(path),)}"
    ),
  )


def _network(config: Config, folder: str) -> DecoderConfig:
  network = dataclasses.replace(weights.load_config(folder), dtype=config.dtype)
  if network.num_outputs is not None:
    raise ValueError(f"{folder} holds a reward model, not a language model")
  return network


def _prompts(config: Config, tokenizer: Tokenizer) -> list[Any]:
  """The prompts of the sources, each once, in their order.

  One that the chat template refuses is a bad record before any is answered.
  """
  stream = reader.RecordStream(
    config.files,
    config.on_bad_record,
    config.extra_columns,
    config.crowd_seed,
    need_responses=False,
    check=refusals.refuses(tokenizer, least=0),
    drop_unusable=False,  # a prompt is one whatever was answered before
  )
  prompts = list(dict.fromkeys(record.prompt for record in stream))
  return prompts[: config.limit]


def _finished(path: epath.Path) -> int:
  """Whole lines of the file; a line that a kill has torn is cut off."""
  if not path.exists():
    return 0
  content = path.read_bytes()
  whole = content[: content.rfind(b"\n") + 1]
  if multihost.is_main() and len(whole) < len(content):
    filesystem.write_atomically(path, whole)
  return whole.count(b"\n")


def _answers(
  config: Config,
  network: DecoderConfig,
  params: Any,
  tokenizer: Tokenizer,
  ends: tuple[int, ...],
  prompts: list[tuple[int, Text]],
  mesh: jax.sharding.Mesh,
) -> list[list[str]]:
  """The responses to each numbered prompt."""
  k = config.num_responses
  share = config.batch_size // k
  # The last batch is filled up, so that one program serves them all.
  ids, mask = prompt_rows.padded_prompts(
    [text for _, text in prompts],
    tokenizer,
    length=config.max_prompt_length,
    num_rows=share,
  )
  numbers = np.zeros(share, np.uint32)
  numbers[: len(prompts)] = [number for number, _ in prompts]
  key = jax.random.key(config.seed)
  keys = jax.vmap(lambda n: jax.random.split(jax.random.fold_in(key, n), k))(
    numbers
  )
  rows = meshes.batch_sharding(mesh)
  each = lambda x: jax.device_put(np.repeat(x, k, axis=0), rows)
  found = models.generate(
    network,
    params,
    each(ids),
    each(mask),
    keys=keys.reshape(-1),
    max_new_tokens=config.max_new_tokens,
    temperature=config.temperature,
    top_p=config.top_p,
    repetition_penalty=config.repetition_penalty,
    eos_ids=ends,
    pad_id=tokenizer.pad_id,
  )
  new, where = multihost.fetch((found.tokens, found.mask))
  texts = [
    tokenizer.decode_response(
      prompts[i // k][1],
      ids[i // k][mask[i // k]].tolist(),
      new[i][where[i]].tolist(),
    )
    for i in range(k * len(prompts))
  ]
  return [texts[i * k : (i + 1) * k] for i in range(len(prompts))]


def _line(prompt: Any, responses: list[str]) -> bytes:
  """One record of the file."""
  asked = (
    prompt
    if isinstance(prompt, str)
    else [turns.message(turn) for turn in prompt]
  )
  return (json.dumps({"prompt": asked, "responses": responses}) + "\n").encode()


def main() -> None:
  """Runs the stage from the command line."""
  cli.define_flags()
  cli.main(Config, run, resumes=True)


if __name__ == "__main__":
  main()
