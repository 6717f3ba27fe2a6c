"""A folder that TRL's RewardTrainer has written, as a source of rewards.

The trainer says what each text is worth: its model on the ids that it made of
the pairs. Turns become the same ids here. Of text without turns the trainer
adds an end of text to what it trains on, which the response has to bring along.
"""

import json
import pathlib
import tempfile
import warnings

import numpy as np
from absl.testing import absltest

from jaxalign.data.records.chat import Turn
from jaxalign.experiments.policy import reward_source
from jaxalign.runtime.distributed import mesh as meshes
from tests import trainers_test
from tests.data.tokenization import tokenizer_files_test as folders

ANSWERS = (
  ("Why?", "so that", "no"),
  ("How long?", "a while", "long"),
  ("When?", "there was", "é"),
  ("Who?", "a girl", "none of them"),
)


def turns(asked, said):
  return [
    {"role": "user", "content": asked},
    {"role": "assistant", "content": said},
  ]


def trained(rows):
  """TRL's trainer after two steps, and the folder of its model."""
  import datasets
  import torch
  import transformers
  import trl

  folder = tempfile.mkdtemp()
  folders.llama(folder, chat_template=folders.LLAMA, pad_token="</s>")
  tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
  torch.manual_seed(0)
  config = transformers.LlamaConfig(
    vocab_size=len(tokenizer),
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=128,
    pad_token_id=tokenizer.pad_token_id,
    bos_token_id=tokenizer.bos_token_id,
    eos_token_id=tokenizer.eos_token_id,
    initializer_range=0.3,
    num_labels=1,
  )
  out = tempfile.mkdtemp()
  trainer = trl.RewardTrainer(
    model=transformers.LlamaForSequenceClassification(config),
    args=trl.RewardConfig(
      output_dir=tempfile.mkdtemp(),
      per_device_train_batch_size=2,
      max_steps=2,
      learning_rate=1e-2,
      max_length=128,
      report_to="none",
      use_cpu=True,
      bf16=False,
    ),
    train_dataset=datasets.Dataset.from_list(rows),
    processing_class=tokenizer,
  )
  trainer.train()
  trainer.save_model(out)
  return trainer, out


def by_trainer(trainer) -> np.ndarray:
  """What its model says of its own ids, chosen and rejected, [N, 2]."""
  import torch

  model = trainer.model.eval()
  score = lambda ids: (
    model(
      input_ids=torch.tensor([ids]),
      attention_mask=torch.ones(1, len(ids), dtype=torch.long),
    )
    .logits[0, 0]
    .item()
  )
  return np.array(
    [
      [score(row["chosen_ids"]), score(row["rejected_ids"])]
      for row in trainer.train_dataset
    ]
  )


def opened(folder, **changes):
  """The folder as `source.models` names it."""
  config = reward_source.RewardSourceConfig(
    models=(folder,), batch_size=4, buckets=(64,), **changes
  )
  mesh = meshes.make_mesh(meshes.MeshConfig(1))
  return reward_source.open_source(config, mesh)


def rewards(source, prompt=str, end="") -> np.ndarray:
  """Rewards of ANSWERS, [N, 2]."""
  prompts = [prompt(asked) for asked, *_ in ANSWERS for _ in range(2)]
  said = [f"{text}{end}" for _, *both in ANSWERS for text in both]
  return source(prompts, said)[:, 0].reshape(-1, 2)


class TrlFolderTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")

  @trainers_test.needs("trl")
  def test_chats_are_worth_what_the_trainer_says(self):
    trainer, folder = trained(
      [
        {"chosen": turns(asked, good), "rejected": turns(asked, bad)}
        for asked, good, bad in ANSWERS
      ]
    )
    wanted = by_trainer(trainer)
    self.assertGreater(np.ptp(wanted), 0.1)
    source = opened(folder, calibrated=False)
    self.assertEqual(source.names, ("reward",))
    found = rewards(source, lambda asked: (Turn("user", asked),))
    np.testing.assert_allclose(found, wanted, atol=2e-5)

  @trainers_test.needs("trl")
  def test_so_are_texts_that_end_as_it_ends_them(self):
    trainer, folder = trained(
      [
        {"prompt": asked, "chosen": good, "rejected": bad}
        for asked, good, bad in ANSWERS
      ]
    )
    wanted = by_trainer(trainer)
    end = trainer.processing_class.eos_token
    found = rewards(opened(folder, calibrated=False), end=end)
    np.testing.assert_allclose(found, wanted, atol=2e-5)

  @trainers_test.needs("trl")
  def test_its_rewards_are_measured_on_a_file(self):
    rows = [
      {"prompt": asked, "chosen": good, "rejected": bad}
      for asked, good, bad in ANSWERS
    ]
    _, folder = trained(rows)
    file = pathlib.Path(tempfile.mkdtemp()) / "seen.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    raw = rewards(opened(folder, calibrated=False))
    found = rewards(opened(folder, calibrate_on=(str(file),)))
    np.testing.assert_allclose(
      found, (raw - raw.mean()) / raw.std(), rtol=1e-3, atol=1e-4
    )


if __name__ == "__main__":
  absltest.main()
