"""All checkpoint families, a table each, read in both directions.

A new family is one more table; `translate` reads the config rows and `layout`
the tensor rows, and neither knows a family by name.
"""

from jaxalign.models.hf.gpt import GPT2, NEOX, OPT
from jaxalign.models.hf.llama import LLAMA, MISTRAL, QWEN2, QWEN3

FAMILIES = {
  family.model_type: family
  for family in (LLAMA, GPT2, NEOX, OPT, MISTRAL, QWEN2, QWEN3)
}
