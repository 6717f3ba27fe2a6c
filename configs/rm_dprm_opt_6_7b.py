r"""The same as configs/rm_dprm.py:opt_6_7b; this name stays for one release.

python -m jaxalign.experiments.train_reward \
      --config=configs/rm_dprm.py:opt_6_7b --workdir=runs/rm_dprm_opt_6_7b
"""

import os
import runpy

_FAMILY = runpy.run_path(os.path.join(os.path.dirname(__file__), "rm_dprm.py"))
get_config = lambda v="full": _FAMILY["get_config"](f"opt_6_7b,{v}")
