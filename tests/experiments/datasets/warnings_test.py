"""Warnings about the data of a run, in the log and for the page."""

from absl.testing import absltest, parameterized

from jaxalign.data.records.chat import Turn
from jaxalign.data.records.record import Record
from jaxalign.data.tokenization import tokenizer_files
from jaxalign.experiments.datasets import warnings as data_warnings

CHAT = (Turn("user", "How?"),)
TEMPLATE = "{% for turn in messages %}{{ turn.content }}{% endfor %}"


def pairs(*prompts):
  return [Record(prompt, (" a", " b")) for prompt in prompts]


class CautionsTest(parameterized.TestCase):
  def found(self, *given, template=None, **options):
    tokenizer = tokenizer_files.byte_tokenizer()
    if template is not None:
      tokenizer = tokenizer.with_template(template)
    with self.assertLogs("jaxalign", "WARNING") as logs:
      data_warnings.log.warning("the first")
      warnings = data_warnings.of_records(tokenizer, *given, **options)
    said = [record.getMessage() for record in logs.records[1:]]
    self.assertEqual(said, [*warnings])
    return warnings

  def test_nothing_to_mind(self):
    self.assertEmpty(self.found(pairs("Q", "R"), pairs("S")))

  def test_held_out_rows_that_also_train(self):
    swapped = Record("Q", (" b", " a"))
    (warning,) = self.found(pairs("Q", "R"), [*pairs("S", "R"), swapped])
    self.assertStartsWith(warning, "2 of 3 held-out pairs also train")

  def test_no_held_out_rows(self):
    (warning,) = self.found(pairs("Q"), (), holds_out=False)
    self.assertStartsWith(warning, "no pairs are held out, so nothing says")
    self.assertNotIn("eval_fraction", warning)
    (other,) = self.found(pairs("Q"), (), holds_out=False, fraction=True)
    self.assertIn("data.eval_fraction", other)

  def test_chats_without_a_template(self):
    (warning,) = self.found(pairs(CHAT, "R"), pairs("S"))
    self.assertStartsWith(warning, "1 pairs are chats and the tokenizer has no")
    self.assertEmpty(self.found(pairs(CHAT), pairs("S"), template=TEMPLATE))

  def test_records_are_noted_again_whenever_they_are_read(self):
    noted = data_warnings.Cautions(
      tokenizer_files.byte_tokenizer(), rows="prompts", unit="prompt"
    )
    seen = noted.passing([Record("Q", ())], held_out=True)
    noted.note([Record("Q", (" other",))], held_out=False)
    for _ in range(2):
      self.assertLen(list(seen), 1)
    (warning,) = noted.found(holds_out=True)
    self.assertStartsWith(warning, "1 of 1 held-out prompts also train")


if __name__ == "__main__":
  absltest.main()
