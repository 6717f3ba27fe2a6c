"""Command blocks of the pages, as a reader would paste them.

A page's blocks run in one shell, in order, in a folder that is not the
checkout. What is changed is what would take too long or needs a cloud, and
nothing else:

- a config gets `:smoke`, beside its size where it names one, but where it is
  only compiled;
- loops over seeds and variants run once;
- `serve` gets a free port and is told to stop once it serves;
- scripts of docs/ are those of the checkout, and write their pictures here;
- scripts of launch/ get `--dry_run`, pip `--dry-run`, in the checkout;
- words for what the reader has, such as FOLDER, become what a run made.

A block under a comment `<!-- not run: REASON -->` is left out.
"""

import os
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

from tests import checkout, tier

FENCE = re.compile(
  r"(?:^<!-- not run: (?P<reason>[^>]+) -->\n)?^```bash\n(?P<text>.*?)^```$",
  re.M | re.S,
)

CONFIG = re.compile(r"(configs/(?!serve)\w+\.py)(?::([\w$,{}]+))?")
SIZE = re.compile(r"\w+_\d\w*b")
LOOP = re.compile(r"\b(for (?:seed|variant) in)\s+([^\s;]+)[^;]*;")

# What the commands of a block are, in the shell that runs them.
PRELUDE = r"""
set -euo pipefail
python() { command python "$@"; }
pip() { command python -m pip --disable-pip-version-check "$1" --dry-run \
  --quiet "${@:2}"; }
script() {
  if [[ $# -gt 1 && $2 != -* ]]; then
    (cd "$CHECKOUT" && "$1" "$2" --dry_run "${@:3}")
  else
    (cd "$CHECKOUT" && "$1" --dry_run "${@:2}")
  fi
}
# Serves until it says so, then ends it as a supervisor would.
serve() {
  local log=serve.$RANDOM.log
  command python -m jaxalign.experiments.serve "$@" --config.serve.port=0 \
    >"$log" 2>&1 &
  local server=$!
  until grep -q 'http://' "$log"; do
    kill -0 $server || { cat "$log"; return 1; }
    sleep 0.2
  done
  kill -TERM $server
  wait $server || { cat "$log"; return 1; }
}
"""


class Block(NamedTuple):
  """A block of commands.

  Attributes:
    line: of the page, from 1.
    text: as the reader sees it.
    reason: why it is not run, or None.
  """

  line: int
  text: str
  reason: str | None


def blocks(page: pathlib.Path) -> list[Block]:
  """The command blocks of a page, in order."""
  text = page.read_text(encoding="utf-8")
  return [
    Block(
      text.count("\n", 0, found.start("text")), found["text"], found["reason"]
    )
    for found in FENCE.finditer(text)
  ]


def with_smoke(config: re.Match[str]) -> str:
  """A config as a command names it, in its variant that ends soon."""
  path, variant = config.groups(default="")
  if "smoke" in variant:
    return config[0]
  return (
    f"{path}:{variant},smoke" if SIZE.fullmatch(variant) else f"{path}:smoke"
  )


def shortened(text: str) -> str:
  """A block's commands with the changes that the module's docstring lists."""
  text = text.replace("python -m jaxalign.experiments.serve", "serve")
  if "jaxalign.experiments.compile" not in text:
    text = CONFIG.sub(with_smoke, text)
  text = LOOP.sub(r"\1 \2;", text)
  text = re.sub(
    r"(?m)^(\s*(?:\w+=\S+ )*)(?:bash )?(launch/\w+\.sh)", r"\1script \2", text
  )
  text = text.replace("python docs/", f"python {checkout.ROOT}/docs/")
  text = text.replace("--png=docs/images/", "--png=")
  return text.replace('pip install -e ".', f'pip install -e "{checkout.ROOT}')


def run(
  chosen: list[Block], folder: pathlib.Path, given: dict[str, str]
) -> subprocess.CompletedProcess:
  """Runs blocks one after another in one shell.

  Args:
    chosen: of one page.
    folder: where they run.
    given: what words for the reader's own things stand for.

  Returns:
    The finished shell, with all output in `stdout`.
  """
  commands = [PRELUDE]
  for block in chosen:
    text = shortened(block.text)
    for word, meaning in given.items():
      text = re.sub(rf"\b{word}\b", meaning, text)
    commands.append(f"echo '== line {block.line}'\n{text}")
  # The reader has one device, and not the eight that the tests pretend.
  bin_folder = pathlib.Path(sys.executable).parent
  return subprocess.run(
    ["bash", "-c", "\n".join(commands)],
    cwd=folder,
    env=os.environ
    | {
      "XLA_FLAGS": tier.xla_flags(),
      "PATH": f"{bin_folder}:{os.environ['PATH']}",
      "PYTHONPATH": str(checkout.ROOT),
      "CHECKOUT": str(checkout.ROOT),
    },
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
