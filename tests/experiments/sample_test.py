"""Sampling to a file: records, resuming, and what is refused."""

import dataclasses
import json
import tempfile

import jax
import numpy as np
from absl.testing import absltest
from etils import epath

from jaxalign.data.records import record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments import sample
from jaxalign.experiments.policy import answers
from jaxalign.models import heads
from jaxalign.models.hf import config_map, weights
from jaxalign.runtime.distributed import mesh as meshes
from tests import config_reads
from tests.data.tokenization import tokenizer_files_test


def policy(num_outputs=None, tokenizer=None, rows=None) -> str:
  """A folder with an untrained model, of bytes if not told otherwise."""
  tokenizer = (
    tokenizer_files.byte_tokenizer() if tokenizer is None else tokenizer
  )
  network = config_map.scratch_config(
    "llama",
    vocab_size=tokenizer.vocab_size if rows is None else rows,
    num_layers=1,
    num_heads=2,
    num_kv_heads=2,
    embed_dim=16,
    mlp_dim=32,
    max_positions=64,
    tie_embeddings=True,
    num_outputs=num_outputs,
    pad_id=tokenizer.pad_id,
  )
  token = np.zeros((1, 1), np.int32)
  params = heads.model_of(network).init(jax.random.key(0), token, token == 0)
  folder = tempfile.mkdtemp()
  weights.save_pretrained(folder, params, network)
  tokenizer.save(folder)
  return folder


def config(model, **changes):
  prompts = epath.Path(tempfile.mkdtemp()) / "prompts.jsonl"
  rows = [
    {"prompt": f"q{i // 2}", "responses": [f" a{i}", " b"]} for i in range(10)
  ]
  prompts.write_text("\n".join(map(json.dumps, rows)))
  base = dict(
    seed=0,
    files=(str(prompts),),
    limit=None,
    on_bad_record="error",
    extra_columns=(),
    crowd_seed=0,
    model=model,
    dtype="float32",
    num_responses=3,
    batch_size=6,
    max_prompt_length=8,
    max_new_tokens=4,
    temperature=1.0,
    top_p=0.9,
    repetition_penalty=1.1,
    mesh=meshes.MeshConfig(1, 1, 1),
  )
  return sample.Config(**base | changes)


class SampleTest(absltest.TestCase):
  def test_each_prompt_once_and_a_torn_file_is_completed_as_if_never_torn(self):
    made = config(policy())
    workdir = epath.Path(tempfile.mkdtemp())
    with config_reads.recorded(made) as unread:
      sample.run(made, workdir)
    self.assertEqual(unread - {"mesh.rules"}, set())
    path = workdir / sample.FILE
    whole = path.read_bytes()
    rows = [json.loads(line) for line in whole.splitlines()]
    self.assertEqual(
      [row["prompt"] for row in rows], [f"q{i}" for i in range(5)]
    )
    for row in rows:
      parsed = record.parse_record(row, where="here")
      self.assertLen(parsed.responses, 3)
      self.assertLen(set(parsed.responses), 3)
    path.write_bytes(whole[: whole.index(b"\n") + 9])
    sample.run(made, workdir)
    self.assertEqual(path.read_bytes(), whole)
    few = epath.Path(tempfile.mkdtemp())
    sample.run(dataclasses.replace(made, limit=2), few)
    self.assertEqual(
      (few / sample.FILE).read_bytes().splitlines(), whole.splitlines()[:2]
    )

  def test_prompts_without_responses_are_answered_as_those_with(self):
    made = config(policy(), batch_size=12)
    (path,) = made.files
    alone = epath.Path(tempfile.mkdtemp()) / "alone.jsonl"
    rows = map(json.loads, epath.Path(path).read_text().splitlines())
    alone.write_text(
      "\n".join(json.dumps({"prompt": row["prompt"]}) for row in rows)
    )
    written = []
    for files in (made.files, (str(alone),)):
      workdir = epath.Path(tempfile.mkdtemp())
      sample.run(dataclasses.replace(made, files=files), workdir)
      written.append((workdir / sample.FILE).read_bytes())
    self.assertEqual(*written)

  def test_the_ends_of_the_config_end_a_response(self):
    made = config(policy(), limit=2, max_new_tokens=8)
    longest = []
    for ends in ((), tuple(range(256))):
      workdir = epath.Path(tempfile.mkdtemp())
      sample.run(dataclasses.replace(made, end_ids=ends), workdir)
      rows = (workdir / sample.FILE).read_text().splitlines()
      longest.append(
        max(len(text) for row in rows for text in json.loads(row)["responses"])
      )
    self.assertGreater(longest[0], 1)
    self.assertEqual(longest[1], 1)
    with self.assertRaisesRegex(ValueError, r"end_ids must be in \[0, 259\)"):
      sample.run(dataclasses.replace(made, end_ids=(259,)), workdir)

  def test_answers_keep_the_space_in_front_of_them(self):
    folder = tempfile.mkdtemp()
    tokenizer_files_test.llama(folder)
    model = policy(tokenizer=tokenizer_files.load_tokenizer(folder))
    workdir = epath.Path(tempfile.mkdtemp())
    sample.run(config(model, num_responses=6), workdir)
    rows = (workdir / sample.FILE).read_text().splitlines()
    found = [text for row in rows for text in json.loads(row)["responses"]]
    self.assertTrue(any(text.startswith(" ") for text in found), found)
    how = answers.SamplingConfig(8, 4, 1.0, None, None, 8, "float32")
    answerer = answers.Answerer(model, how, jax.random.key(0))
    found = answerer(["q"] * 24, range(24))
    self.assertTrue(any(text.startswith(" ") for text in found), found)

  def test_a_tokenizer_of_more_tokens_than_are_embedded_is_refused(self):
    with self.assertRaisesRegex(ValueError, "has 259 tokens, .* embeds 258"):
      sample.run(config(policy(rows=258)), epath.Path(tempfile.mkdtemp()))

  def test_what_does_not_fit_is_refused(self):
    with self.assertRaisesRegex(ValueError, "multiple of num_responses, got 8"):
      config("x", batch_size=8)
    with self.assertRaisesRegex(ValueError, "limit must be >= 1 or None, got"):
      config("x", limit=0)
    with self.assertRaisesRegex(ValueError, "holds a reward model"):
      sample.run(config(policy(num_outputs=1)), epath.Path(tempfile.mkdtemp()))


if __name__ == "__main__":
  absltest.main()
