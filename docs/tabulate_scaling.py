"""Fills in the table of scaling.md: python docs/tabulate_scaling.py [--cached].

Each row is one ahead-of-time compilation of minutes in a process of its own.
What was compiled is kept in scaling.json beside this file; delete an entry to
compile it again. With --cached nothing is compiled.
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parent
CACHE = FOLDER / "scaling.json"
PAGE = FOLDER / "scaling.md"

# Config, pairs per device and step, and the slices, by falling interest.
RUNS = (
  ("rm_bt_pythia_1_4b:shape", 4, ("v5e:4x4", "v5e:16x16", "v5e:8x8")),
  ("rm_bt_pythia_1_4b:long", 1, ("v5e:4x4", "v5e:16x16")),
  ("rm_more_pythia_1_4b:shape", 5, ("v5e:4x4", "v5e:16x16", "v5e:8x8")),
  ("rm_bt_pythia_1_4b:shape", 4, ("v5p:4x4x4", "v6e:8x8", "v4:2x4x4")),
)
GIB = 2**30


def chips(topology: str) -> int:
  """Chips of a slice: v5e:4x4 has 16."""
  product = 1
  for size in topology.partition(":")[2].split("x"):
    product *= int(size)
  return product


def devices(topology: str) -> int:
  """Devices that a program is compiled for; a v4 chip counts as two."""
  return chips(topology) * (2 if topology.startswith("v4:") else 1)


def compiled(config: str, rows: int, topology: str) -> dict:
  """What the compile stage says of one row."""
  batch = rows * devices(topology)
  file, _, variant = config.partition(":")
  with tempfile.TemporaryDirectory() as workdir:
    subprocess.run(
      [
        sys.executable,
        "-m",
        "jaxalign.experiments.compile",
        f"--config=configs/{file}.py:{variant}",
        f"--topology={topology}",
        f"--config.train.batch_size={batch}",
        f"--config.eval.batch_size={batch}",
        f"--workdir={workdir}",
      ],
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
      cwd=FOLDER.parent,
      stdout=subprocess.DEVNULL,
      check=False,  # what does not fit has a row too
    )
    result = json.loads((pathlib.Path(workdir) / "compile.json").read_text())
  (program,) = result["programs"]
  messages = program["collectives"] or ()
  return {
    "mesh": result["mesh"],
    "rows": program["rows"],
    "fits": result["fits"],
    "limit": result["hbm_limit_bytes"],
    "hbm": program["hbm_bytes"],
    "flops": program["flops"],
    "collective_bytes": sum(m["bytes"] * m["count"] for m in messages),
    "involuntary": len(program["involuntary"]),
    "replicated": len(program["replicated"]),
    "versions": {
      name: importlib.metadata.version(name) for name in ("jax", "libtpu")
    },
  }


def table(entries: dict, wanted: list[tuple[str, str]]) -> str:
  """The rows that were compiled, as a Markdown table."""
  lines = [
    "| config | slice | mesh | HBM per device | parameters, optimiser | "
    "activations | of the limit | collectives per device | reshards | giants |",
    "|" + "---|" * 10,
  ]
  for config, topology in wanted:
    entry = entries.get(f"{config} {topology}")
    if entry is None:
      continue
    hbm, mesh = entry["hbm"], entry["mesh"]
    state = hbm["parameters"] + hbm["optimizer"]
    lines.append(
      f"| `{config}` | {topology}, {chips(topology)} chips | "
      f"{mesh['data']} x {mesh['fsdp']} x {mesh['tensor']} | "
      f"{hbm['total'] / GIB:.2f} GiB | {state / GIB:.2f} GiB | "
      f"{hbm['activations'] / GIB:.2f} GiB | "
      f"{hbm['total'] / entry['limit']:.0%} | "
      f"{entry['collective_bytes'] / GIB:.2f} GiB | "
      f"{entry['involuntary']} | {entry['replicated']} |"
    )
  return "\n".join(lines)


def filled(page: str, entries: dict) -> str:
  """The page with its table written anew."""
  wanted = [(config, t) for config, _, slices in RUNS for t in slices]
  shown = sorted(wanted, key=lambda run: (run[0], run[1][:3], chips(run[1])))
  before, mark, rest = page.partition("<!-- rows -->\n")
  end = rest.partition("<!-- end -->")[2]
  return f"{before}{mark}{table(entries, shown)}\n<!-- end -->{end}"


def main() -> None:
  """Compiles what is missing, then writes the page."""
  entries = json.loads(CACHE.read_text()) if CACHE.exists() else {}
  for config, rows, slices in () if "--cached" in sys.argv else RUNS:
    for topology in slices:
      key = f"{config} {topology}"
      if key not in entries:
        entries[key] = compiled(config, rows, topology)
        CACHE.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
  PAGE.write_text(filled(PAGE.read_text(), entries))


if __name__ == "__main__":
  main()
