"""The engine: runs a plan on a task. The one training loop."""

from jaxtickets.engine.fit import fit as fit
from jaxtickets.engine.probes import read_probes as read_probes
from jaxtickets.engine.run_folder import read_metrics as read_metrics
from jaxtickets.engine.run_folder import versions as versions
from jaxtickets.engine.run_folder import write_json as write_json
