"""Ensembles of sparse subnetworks in JAX.

A ticket is `(params, mask)`. A method is a plan. An ensemble is one plan run from several keys.

>>> import jaxtickets as jt
>>> plan = jt.edst(members=3, sparsity=0.8, explore=150, refine=100)
>>> plan.members
3
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxtickets import data as data
    from jaxtickets import evaluation as evaluation
    from jaxtickets import masks as masks
    from jaxtickets import methods as methods
    from jaxtickets import models as models
    from jaxtickets import plan as plan
    from jaxtickets import report as report
    from jaxtickets import schedules as schedules
    from jaxtickets import selection as selection
    from jaxtickets import sparsity as sparsity
    from jaxtickets import transforms as transforms
    from jaxtickets import units as units
    from jaxtickets.dataset import Dataset as Dataset
    from jaxtickets.dataset import EvaluationStream as EvaluationStream
    from jaxtickets.dataset import SeekableStream as SeekableStream
    from jaxtickets.dataset import Stream as Stream
    from jaxtickets.engine import fit as fit
    from jaxtickets.ensemble import Ticket as Ticket
    from jaxtickets.ensemble import TicketEnsemble as TicketEnsemble
    from jaxtickets.errors import CheckpointError as CheckpointError
    from jaxtickets.errors import DataError as DataError
    from jaxtickets.errors import NonFiniteLoss as NonFiniteLoss
    from jaxtickets.errors import RunError as RunError
    from jaxtickets.errors import TicketError as TicketError
    from jaxtickets.errors import TicketFileError as TicketFileError
    from jaxtickets.evaluation import evaluate as evaluate
    from jaxtickets.ledger import cost as cost
    from jaxtickets.masks import MaskError as MaskError
    from jaxtickets.members import Layout as Layout
    from jaxtickets.members import member_keys as member_keys
    from jaxtickets.methods import bagged as bagged
    from jaxtickets.methods import dense as dense
    from jaxtickets.methods import dst as dst
    from jaxtickets.methods import edst as edst
    from jaxtickets.methods import fge as fge
    from jaxtickets.methods import imp as imp
    from jaxtickets.methods import ltr as ltr
    from jaxtickets.methods import multi_ticket as multi_ticket
    from jaxtickets.methods import prune_and_tune as prune_and_tune
    from jaxtickets.methods import prune_finetune as prune_finetune
    from jaxtickets.methods import snapshot as snapshot
    from jaxtickets.methods import static_sparse as static_sparse
    from jaxtickets.methods import within_budget as within_budget
    from jaxtickets.models import classification as classification
    from jaxtickets.models import fine_tuning as fine_tuning
    from jaxtickets.models import masked_language_modelling as masked_language_modelling
    from jaxtickets.models import read_checkpoint as read_checkpoint
    from jaxtickets.models import regression as regression
    from jaxtickets.models import save_pretrained as save_pretrained
    from jaxtickets.plan import Length as Length
    from jaxtickets.plan import Plan as Plan
    from jaxtickets.plan import PlanError as PlanError
    from jaxtickets.shrinking import shrink as shrink
    from jaxtickets.task import Task as Task
    from jaxtickets.ticket_file import load as load

# Public names by the module that has them; each is imported when it is first used, so that `import jaxtickets` costs
# what JAX costs and somebody who wants one transform does not pay for the engine.
_MODULES = (
    "data",
    "evaluation",
    "masks",
    "methods",
    "models",
    "plan",
    "report",
    "schedules",
    "selection",
    "sparsity",
    "transforms",
    "units",
)
_NAMES = {
    "ledger": "cost",
    "dataset": "Dataset EvaluationStream SeekableStream Stream",
    "engine": "fit",
    "ensemble": "Ticket TicketEnsemble",
    "errors": "CheckpointError DataError NonFiniteLoss RunError TicketError TicketFileError",
    "evaluation": "evaluate",
    "masks": "MaskError",
    "members": "Layout member_keys",
    "methods": "bagged dense dst edst fge imp ltr multi_ticket prune_and_tune prune_finetune snapshot static_sparse within_budget",
    "models": "classification fine_tuning masked_language_modelling read_checkpoint regression save_pretrained",
    "plan": "Length Plan PlanError",
    "shrinking": "shrink",
    "task": "Task",
    "ticket_file": "load",
}
_WHERE = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [*_MODULES, *_WHERE]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        value = getattr(importlib.import_module(f"jaxtickets.{_WHERE[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"jaxtickets.{name}")
    else:
        raise AttributeError(f"module 'jaxtickets' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
