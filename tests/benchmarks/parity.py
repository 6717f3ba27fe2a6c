r"""How far each checkpoint family is from torch: the table of docs/models.md.

    python -m tests.benchmarks.parity

Random tiny models of transformers, every parameter away from its special value,
as a language model and as a classifier, compared as the stage `verify` does.
Prints one line of Markdown per family: the largest differences in float32.
"""

import sys
import tempfile

from jaxalign.experiments import verify
from tests.models import generate_parity_test, parity_test

CONFIG = verify.Config(
  seed=0,
  model="",
  rows=8,
  length=24,
  tolerance=1e-4,
  padding_tolerance=1e-4,
  round_trip=True,
)


def measured(family: str, fields: dict) -> dict[str, float]:
  with tempfile.TemporaryDirectory() as folder:
    parity_test.build(family, fields).save_pretrained(folder)
    return {c.name: c.measured for c in verify.compare(CONFIG, folder)}


def main() -> None:
  for family in parity_test.BASES:
    fields = generate_parity_test.FIELDS.get(family, {})
    language = measured(family, fields)
    reward = measured(family, fields | {"num_labels": 2})
    padding = max(
      value
      for checks in (language, reward)
      for name, value in checks.items()
      if name.startswith("padding")
    )
    values = (
      language["logits"],
      language["hidden states"],
      reward["scores"],
      padding,
      max(language["round trip"], reward["round trip"]),
    )
    cells = " | ".join(f"{value:.1e}" for value in values)
    sys.stdout.write(f"| {family} | {cells} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
  main()
