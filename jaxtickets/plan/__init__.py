"""A method as data: a plan is a short list of phases."""

from jaxtickets.errors import PlanError
from jaxtickets.plan.evolving import Evolve, Gradual, MaskEvolution
from jaxtickets.plan.lengths import Length, as_length
from jaxtickets.plan.optimizers import SGD, Adam, Optax, Optimizer, Override
from jaxtickets.plan.packing import Pack
from jaxtickets.plan.parts import Part, default_of, describe
from jaxtickets.plan.penalties import L1
from jaxtickets.plan.phase import Before, NetworkShapes, Phase
from jaxtickets.plan.phases import Collect, Escape, Fork, Prune, Remember, Rewind, Shrink, Start
from jaxtickets.plan.plan import Plan
from jaxtickets.plan.training import Train

__all__ = [
    "L1",
    "SGD",
    "Adam",
    "Before",
    "Collect",
    "Escape",
    "Evolve",
    "Fork",
    "Gradual",
    "Length",
    "MaskEvolution",
    "NetworkShapes",
    "Optax",
    "Optimizer",
    "Override",
    "Pack",
    "Part",
    "Phase",
    "Plan",
    "PlanError",
    "Prune",
    "Remember",
    "Rewind",
    "Shrink",
    "Start",
    "Train",
    "as_length",
    "default_of",
    "describe",
]
