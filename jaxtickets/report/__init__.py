"""Tables and figures, from results and run folders; never from training."""

from jaxtickets.report.results import results as results
from jaxtickets.report.results import results_table as results_table
from jaxtickets.report.timeline import draw_run as draw_run
