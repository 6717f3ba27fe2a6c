"""Runs of TRL as its users start them: RewardTrainer and GRPOTrainer.

    PEERS/bin/python tests/benchmarks/trl_trainers.py reward|grpo FOLDER OUT
    PEERS/bin/python tests/benchmarks/trl_trainers.py turns FOLDER

`trl_runs` and `policy_turns` start this with an interpreter that has TRL and no
jaxalign. FOLDER holds model/, train.jsonl, eval.jsonl and settings.json. A run
writes OUT/model and prints, on its last line, JSON with the seconds of each
step. `turns` takes a step of GRPO for each line of its input, and answers each
with the seconds that it took.
"""

import json
import pathlib
import sys
import tempfile
import time

import datasets
import transformers
import trl


class StepClock(transformers.TrainerCallback):
  """Seconds from the beginning of a step to the beginning of the next."""

  def __init__(self) -> None:
    self.times: list[float] = []

  def on_step_begin(self, args, state, control, **kwargs) -> None:
    self.times.append(time.perf_counter())

  def on_train_end(self, args, state, control, **kwargs) -> None:
    self.times.append(time.perf_counter())


class Turns(transformers.TrainerCallback):
  """A step for each line of the input; the end of it ends the run."""

  def on_step_begin(self, args, state, control, **kwargs) -> None:
    if not sys.stdin.readline():
      sys.exit(0)
    self.begun = time.perf_counter(), time.process_time()

  def on_step_end(self, args, state, control, **kwargs) -> None:
    wall = time.perf_counter() - self.begun[0]
    cpu = time.process_time() - self.begun[1]
    sys.__stdout__.write(f"seconds {wall} {cpu}\n")
    sys.__stdout__.flush()


def letters(prompts, completions, **columns) -> list[float]:
  """How many letters e a completion has: costs nothing."""
  return [float(text.count("e")) for text in completions]


def reward_trainer(folder, settings, rows, common, callback):
  return trl.RewardTrainer(
    model=str(folder / "model"),
    args=trl.RewardConfig(
      per_device_train_batch_size=settings["batch_size"],
      per_device_eval_batch_size=settings["batch_size"],
      max_length=settings["max_length"],
      logging_steps=10,
      eval_strategy="no",
      **common,
    ),
    train_dataset=rows["train"],
    eval_dataset=rows["eval"],
    callbacks=[callback],
  )


def grpo_trainer(folder, settings, rows, common, callback):
  return trl.GRPOTrainer(
    model=str(folder / "model"),
    reward_funcs=letters,
    args=trl.GRPOConfig(
      per_device_train_batch_size=settings["batch_size"],
      num_generations=settings["num_responses"],
      max_completion_length=settings["max_new_tokens"],
      generation_kwargs={"min_new_tokens": settings["max_new_tokens"]},
      beta=settings["beta"],
      temperature=1.0,
      logging_steps=1,
      **common,
    ),
    train_dataset=rows["train"].select_columns(["prompt"]),
    callbacks=[callback],
  )


def main() -> None:
  kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
  settings = json.loads((folder / "settings.json").read_text())
  files = {split: str(folder / f"{split}.jsonl") for split in ("train", "eval")}
  turns = kind == "turns"
  out = tempfile.mkdtemp() if turns else sys.argv[3]
  common = dict(
    output_dir=out,
    max_steps=10_000 if turns else settings["num_steps"],
    learning_rate=settings["learning_rate"],
    lr_scheduler_type="constant",
    report_to=[],
    use_cpu=True,
    bf16=False,
    gradient_checkpointing=False,
    save_strategy="no",
    disable_tqdm=True,
    seed=0,
  )
  clock = Turns() if turns else StepClock()
  made = reward_trainer if kind == "reward" else grpo_trainer
  rows = datasets.load_dataset("json", data_files=files, cache_dir=out)
  trainer = made(folder, settings, rows, common, clock)
  trainer.train()
  if kind == "reward":
    trainer.evaluate()
  trainer.save_model(str(pathlib.Path(out) / "model"))
  steps = [b - a for a, b in zip(clock.times, clock.times[1:], strict=False)]
  sys.stdout.write("\n" + json.dumps({"steps_s": steps}) + "\n")


if __name__ == "__main__":
  main()
