r"""The same as configs/rm_dprm.py:llama_7b; this name stays for one release.

python -m jaxalign.experiments.train_reward \
      --config=configs/rm_dprm.py:llama_7b --workdir=runs/rm_dprm_llama_7b
"""

import os
import runpy

_FAMILY = runpy.run_path(os.path.join(os.path.dirname(__file__), "rm_dprm.py"))
get_config = lambda v="full": _FAMILY["get_config"](f"llama_7b,{v}")
