"""From many people's disagreeing preferences to a policy fair to the worst off.

`from jaxalign import losses` needs jax and numpy alone; training needs the
extra `jaxalign[train]`.
"""

__version__ = "0.1.0"
