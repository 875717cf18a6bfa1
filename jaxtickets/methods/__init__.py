"""The papers' methods as functions that return a plan."""

from jaxtickets.methods.baselines import bagged as bagged
from jaxtickets.methods.baselines import dense as dense
from jaxtickets.methods.baselines import static_sparse as static_sparse
from jaxtickets.methods.budget import within_budget as within_budget
from jaxtickets.methods.free_tickets import dst as dst
from jaxtickets.methods.free_tickets import edst as edst
from jaxtickets.methods.imp_tickets import imp as imp
from jaxtickets.methods.imp_tickets import multi_ticket as multi_ticket
from jaxtickets.methods.pruned import ltr as ltr
from jaxtickets.methods.pruned import prune_finetune as prune_finetune
from jaxtickets.methods.random_children import prune_and_tune as prune_and_tune
from jaxtickets.methods.temporal import fge as fge
from jaxtickets.methods.temporal import snapshot as snapshot
