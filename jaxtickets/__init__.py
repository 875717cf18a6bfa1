"""Ensembles of sparse subnetworks in JAX.

A ticket is `(params, mask)`. A method is a plan. An ensemble is one plan run from several keys.

>>> import jaxtickets as jt
>>> plan = jt.edst(members=3, sparsity=0.8, explore=150, refine=100)
>>> plan.members
3
"""

import lazy_loader

__version__ = "0.1.0"

# The names are in __init__.pyi. Each is imported when it is first used, so that `import jaxtickets`
# costs what JAX costs and somebody who wants one transform does not pay for the engine.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
