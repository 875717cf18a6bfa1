"""Methods: functions that return a plan."""

from jaxtickets.methods.baselines import dense as dense
from jaxtickets.methods.baselines import static_sparse as static_sparse
from jaxtickets.methods.free_tickets import dst as dst
from jaxtickets.methods.free_tickets import edst as edst
