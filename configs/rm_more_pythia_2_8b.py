r"""The same as configs/rm_more.py:pythia_2_8b; this name stays for one release.

python -m jaxalign.experiments.train_reward \
      --config=configs/rm_more.py:pythia_2_8b --workdir=runs/rm_more_pythia_2_8b
"""

import os
import runpy

_FAMILY = runpy.run_path(os.path.join(os.path.dirname(__file__), "rm_more.py"))
get_config = lambda v="full": _FAMILY["get_config"](f"pythia_2_8b,{v}")
