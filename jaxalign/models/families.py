"""All checkpoint families, a table each, read in both directions.

A new family is one more table; `translate` reads the config rows and `layout`
the tensor rows, and neither knows a family by name.
"""

from jaxalign.models.gpt_families import GPT2, NEOX, OPT
from jaxalign.models.llama_families import LLAMA, MISTRAL, QWEN2, QWEN3

FAMILIES = {
  family.model_type: family
  for family in (LLAMA, GPT2, NEOX, OPT, MISTRAL, QWEN2, QWEN3)
}
