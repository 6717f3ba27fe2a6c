"""Installs jaxalign: the core needs jax and numpy, everything else an extra."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
# Of the repository's files, such as https://host/owner/name/blob/main; empty
# until there is one. Links of README and of the package page come from it.
URL = ""
PAGES = {
  "Documentation": "docs/quickstart.md",
  "Changelog": "CHANGELOG.md",
  "Configs": "docs/config.md",
}
VERSION = re.search(
  r'__version__ = "([^"]+)"', (ROOT / "jaxalign/__init__.py").read_text()
).group(1)

TRAIN = [
  "absl-py>=2.3",
  "datasets>=5.2,<6",
  "etils[epath]>=1.13",
  "flax>=0.12.8,<0.13",
  "fsspec>=2025.3",  # datasets brings it along, etils and runtime use it
  "grain>=0.2.18,<0.3",
  "httpx>=0.28",
  "huggingface_hub>=1",  # transformers brings it along, hub ids use it
  "jinja2>=3.1",
  "matplotlib>=3.10",
  "ml-collections>=1.1,<2",
  "optax>=0.2.8,<0.3",
  "orbax-checkpoint>=0.12.8,<0.13",
  "rich>=14",
  "safetensors>=0.7",
  "tokenizers>=0.22",
  "transformers>=5.12,<6",
]
CLOUD = [
  "gcsfs>=2025.3",
  "google-cloud-storage>=3",  # Orbax asks it what kind of bucket there is
  "s3fs>=2025.3",
]
TEST = [
  "hypothesis>=6.140",
  "ott-jax>=0.6",
  "pytest>=9",
  "pytest-xdist>=3.8",
  "scipy>=1.16",
  "setuptools>=77",  # which Python 3.12 no longer brings along
  "tensorboardX>=2.6",  # reads what runs write for TensorBoard
]
DOCS = ["furo>=2025.12", "myst-parser>=5", "sphinx>=9"]
# A formatter that changes its mind would fail every checkout: minor is fixed.
LINT = ["mypy>=2.4,<3", "ruff>=0.17,<0.18"]


def shown(text: str, url: str) -> str:
  """README with links that lead somewhere outside the repository too."""
  return re.sub(r"\]\((?!https?:|#)", f"]({url}/", text) if url else text


setuptools.setup(
  name="jaxalign",
  version=VERSION,
  description="From many people's disagreeing preferences to a fair policy.",
  long_description=shown((ROOT / "README.md").read_text(encoding="utf-8"), URL),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  keywords=[
    "jax",
    "flax",
    "rlhf",
    "reward model",
    "preference learning",
    "pluralistic alignment",
    "fairness",
    "ppo",
    "dpo",
    "llm",
    "tpu",
  ],
  project_urls={k: f"{URL}/{page}" for k, page in PAGES.items() if URL},
  python_requires=">=3.11",
  packages=[
    *setuptools.find_packages(include=["jaxalign", "jaxalign.*"]),
    "jaxalign.configs",
  ],
  package_dir={"jaxalign.configs": "configs"},  # of a checkout
  package_data={
    "jaxalign": ["py.typed", "**/*.jinja", "**/*.json"],
    "jaxalign.configs": ["*.json"],
  },
  entry_points={"console_scripts": ["jaxalign=jaxalign.__main__:command"]},
  install_requires=["jax>=0.10.2,<0.13", "numpy>=2.0"],
  extras_require={
    "train": TRAIN,
    "tpu": ["jax[tpu]>=0.10.2,<0.13"],
    "cuda": ["jax[cuda13]>=0.10.2,<0.13"],
    "cloud": CLOUD,
    "serve": ["starlette>=0.47", "uvicorn>=0.35"],
    "test": TEST,
    "lint": LINT,
    "docs": DOCS,
    "parity": ["torch>=2.13,<3", "peft>=0.18"],
    # Trainers that docs/trainers.md is tested against. tunix wants an older
    # safetensors, OpenRLHF and verl a GPU's libraries: see tests/trainers_test.
    "trackers": ["trackio>=0.40", "wandb>=0.30"],
    "peers": ["aiohttp>=3.13", "trl==1.16.0"],
  },
  classifiers=[
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
    "Typing :: Typed",
  ],
)
