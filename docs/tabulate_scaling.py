"""Fills in scaling.md: python docs/tabulate_scaling.py [--cached].

Each entry is one ahead-of-time compilation of minutes in a process of its own.
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
  ("rm_more:pythia_1_4b,shape", 5, ("v5e:4x4", "v5e:16x16", "v5e:8x8")),
  ("rm_bt_pythia_1_4b:shape", 4, ("v5p:4x4x4", "v6e:8x8", "v4:2x4x4")),
)
# At the batch that they name, on the slice that they are for.
PAPER = (
  ("rm_more:pythia_1_4b,shape", "v5e:4x4"),
  ("rm_more:pythia_2_8b,shape", "v5e:4x4"),
  ("rm_more:llama2_7b,shape", "v5e:4x4"),
  ("rm_more:llama2_13b,shape", "v5e:4x8"),
  ("rm_more:llama2_70b,shape", "v5p:8x8x8"),
  ("dpo_llama2_7b:shape", "v5e:4x4"),
  ("rm_metarm_llama2_7b:shape", "v5e:4x4"),
  ("rm_contrastive_llama2_7b:shape", "v5e:4x4"),
  ("denoise_llama2_7b:shape", "v5e:8x8"),
  ("rm_denoised_llama2_7b:shape", "v5e:4x4"),
  ("rm_dprm:opt_2_7b,shape", "v5e:4x4"),
  ("rm_dprm:opt_6_7b,shape", "v5e:4x8"),
  ("rm_dprm:llama_7b,shape", "v5e:4x8"),
  ("rm_mixture_tulu2_7b:shape", "v5e:4x4"),
  ("policy_maxmin_gpt2_imdb:shape", "v5e:2x2"),
  ("policy_maxmin_tulu2_7b:shape", "v5e:4x4"),
  ("policy_maxmin_tulu2_7b:shape_qwen3_8b", "v6e:8x8"),
  ("policy_dprm:opt_2_7b,shape", "v5e:4x4"),
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


def compiled(config: str, rows: int | None, topology: str) -> dict[str, dict]:
  """What the compile stage says of each program, by the end of its key.

  Args:
    config: FILE:variant.
    rows: per device and step; None for what the config says.
    topology: of the slice.
  """
  batch = None if rows is None else rows * devices(topology)
  file, _, variant = config.partition(":")
  stages = {"policy": "train_policy", "denoise": "denoise", "dpo": "train_dpo"}
  stage = stages.get(file.partition("_")[0], "train_reward")
  with tempfile.TemporaryDirectory() as workdir:
    subprocess.run(
      [
        sys.executable,
        "-m",
        "jaxalign.experiments.compile",
        f"--stage={stage}",
        f"--config=configs/{file}.py:{variant}",
        f"--topology={topology}",
        *(
          f"--config.{section}.batch_size={batch}"
          for section in ("train", "eval")
          if batch is not None
        ),
        f"--workdir={workdir}",
      ],
      env=os.environ | {"JAX_PLATFORMS": "cpu"},
      cwd=FOLDER.parent,
      stdout=subprocess.DEVNULL,
      check=False,  # what does not fit has a row too
    )
    result = json.loads((pathlib.Path(workdir) / "compile.json").read_text())
  return entries_of(result)


def entries_of(result: dict) -> dict[str, dict]:
  """What is kept of a compile.json, one entry for each program.

  Args:
    result: its content.
  """
  return {
    "" if program["name"] == "step" else f" {program['name']}": {
      "mesh": result["mesh"],
      "rows": program["rows"],
      "fits": program["fits"],
      "limit": result["hbm_limit_bytes"],
      "hbm": program["hbm_bytes"],
      "flops": program["flops"],
      "collective_bytes": sum(
        m["bytes"] * m["count"] for m in program["collectives"] or ()
      ),
      "involuntary": len(program["involuntary"]),
      "replicated": len(program["replicated"]),
      "versions": {
        name: importlib.metadata.version(name) for name in ("jax", "libtpu")
      },
    }
    for program in result["programs"]
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


def paper_table(entries: dict) -> str:
  """The rows of `PAPER` that were compiled, as a Markdown table."""
  lines = [
    "| config | slice | rows and tokens | HBM per device | parameters, "
    "optimiser | temporaries | of the limit | FLOPs | collectives per device | "
    "reshards | giants |",
    "|" + "---|" * 11,
  ]
  for config, topology in PAPER:
    for end in ("", " sample", " learn"):
      entry = entries.get(f"{config} {topology}{end}")
      if entry is None:
        continue
      hbm = entry["hbm"]
      state = hbm["parameters"] + hbm.get("optimizer", 0)
      rest = hbm["activations"] + hbm.get("kv_cache", 0)
      lines.append(
        f"| `{config}`{end and ','}{end} | {topology} | "
        f"{' x '.join(map(str, entry['rows']))} | "
        f"{hbm['total'] / GIB:.2f} GiB | {state / GIB:.2f} GiB | "
        f"{rest / GIB:.2f} GiB | {hbm['total'] / entry['limit']:.0%} | "
        f"{entry['flops']:.2g} | {entry['collective_bytes'] / GIB:.2f} GiB | "
        f"{entry['involuntary']} | {entry['replicated']} |"
      )
  return "\n".join(lines)


def filled(page: str, entries: dict) -> str:
  """The page with its tables written anew."""
  wanted = [(config, t) for config, _, slices in RUNS for t in slices]
  shown = sorted(wanted, key=lambda run: (run[0], run[1][:3], chips(run[1])))
  for mark, lines in (
    ("<!-- rows -->\n", table(entries, shown)),
    ("<!-- paper -->\n", paper_table(entries)),
  ):
    before, _, rest = page.partition(mark)
    end = rest.partition("<!-- end -->")[2]
    page = f"{before}{mark}{lines}\n<!-- end -->{end}"
  return page


def main() -> None:
  """Compiles what is missing, then writes the page."""
  entries = json.loads(CACHE.read_text()) if CACHE.exists() else {}
  runs = [(config, rows, t) for config, rows, slices in RUNS for t in slices]
  runs += [(config, None, topology) for config, topology in PAPER]
  for config, rows, topology in () if "--cached" in sys.argv else runs:
    key = f"{config} {topology}"
    if not {key, f"{key} learn"} & entries.keys():
      found = compiled(config, rows, topology)
      entries |= {f"{key}{end}": entry for end, entry in found.items()}
      CACHE.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")
  PAGE.write_text(filled(PAGE.read_text(), entries))


if __name__ == "__main__":
  main()
