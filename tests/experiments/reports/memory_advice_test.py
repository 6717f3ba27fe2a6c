"""What is suggested where a step does not fit, by what takes the room."""

from absl.testing import absltest

from jaxalign.experiments.reports import memory_advice

GIB = 2**30
CONFIG = {
  "model": {"remat": "none", "attention": "dense"},
  "train": {"batch_size": 64, "accumulation": 1},
}


def suggest(config=CONFIG, fsdp=1, data=16, **gib):
  memory = {name: int(size * GIB) for name, size in gib.items()}
  memory["total"] = sum(memory.values())
  mesh = {"data": data, "fsdp": fsdp, "tensor": 1}
  return memory_advice.suggestions(config, mesh, memory, 16 * GIB)


class SuggestionsTest(absltest.TestCase):
  def test_nothing_where_it_fits(self):
    self.assertEmpty(suggest(parameters=4, optimizer=8, activations=4))

  def test_state_is_split_until_it_takes_half(self):
    (found,) = suggest(parameters=10, optimizer=20, activations=4)
    self.assertStartsWith(found, "--config.mesh.fsdp=4: ")
    self.assertIn("take 30.00 GiB per device, then 7.50 GiB", found)

  def test_temporaries_go_from_cheap_to_dear(self):
    found = suggest(parameters=1, optimizer=2, activations=30)
    self.assertEqual(
      [line.partition(":")[0] for line in found],
      [
        "--config.model.remat=dots",
        "--config.model.attention=splash",
        "--config.train.accumulation=4",  # 30 over 13 GiB, of 4 rows a device
      ],
    )

  def test_nothing_left_to_turn_asks_for_devices(self):
    config = {
      "model": {"remat": "full", "attention": "splash"},
      "train": {"batch_size": 16, "accumulation": 1},
    }
    found = suggest(config, fsdp=16, data=1, parameters=20, optimizer=40)
    self.assertLen(found, 1)
    self.assertStartsWith(found[0], "more devices: ")
    (found,) = suggest(config, fsdp=16, data=1, parameters=1, activations=20)
    self.assertStartsWith(found, "more devices, or shorter")

  def test_scoring_takes_fewer_rows(self):
    config = {"model": {}, "eval": {"batch_size": 64}}
    (found,) = suggest(config, parameters=1, activations=40)
    self.assertStartsWith(found, "--config.eval.batch_size=21")


if __name__ == "__main__":
  absltest.main()
