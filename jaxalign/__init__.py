"""JAX library for disagreeing preferences: from votes to a policy fair to all.

`from jaxalign import losses` needs jax and numpy alone; training needs the
extra `jaxalign[train]`.
"""

__version__ = "0.2.0"
