"""The engine: runs a plan on a task. The one training loop.

What a phase of your own does is registered with `run_phase`, how an evolution of your own changes
the mask with `mask_rule`, what an optimizer of your own is with `build_optimizer`.
"""

from jaxtickets.engine.atomic import write_json
from jaxtickets.engine.candidates import AutoLayout
from jaxtickets.engine.events import Collected, Message
from jaxtickets.engine.fitting import fit
from jaxtickets.engine.mask_rules import MaskRule, mask_rule
from jaxtickets.engine.metrics import read_metrics
from jaxtickets.engine.optimizer import build_optimizer
from jaxtickets.engine.phase_steps import run_phase
from jaxtickets.engine.probes import read_probes
from jaxtickets.engine.versions import versions

__all__ = [
    "AutoLayout",
    "Collected",
    "MaskRule",
    "Message",
    "build_optimizer",
    "fit",
    "mask_rule",
    "read_metrics",
    "read_probes",
    "run_phase",
    "versions",
    "write_json",
]
