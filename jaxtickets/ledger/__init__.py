"""What a plan costs, by reading it: theoretical FLOPs and bytes. What a phase of your own costs is
registered with `phase_cost`, a training with a mask evolution of your own with `evolution_cost`.
"""

from jaxtickets.ledger.layers import sparse_forward
from jaxtickets.ledger.phase_costs import BeforePhase, Costs, evolution_cost, phase_cost
from jaxtickets.ledger.plan_cost import PhaseCost, PlanCost, cost

__all__ = [
    "BeforePhase",
    "Costs",
    "PhaseCost",
    "PlanCost",
    "cost",
    "evolution_cost",
    "phase_cost",
    "sparse_forward",
]
