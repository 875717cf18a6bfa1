"""Tables and figures, from results and run folders; never from training."""

from jaxtickets.report.comparison import THEORETICAL as THEORETICAL
from jaxtickets.report.comparison import comparison_table as comparison_table
from jaxtickets.report.comparison import markdown_comparison as markdown_comparison
from jaxtickets.report.comparison import summary as summary
from jaxtickets.report.figures import draw_comparison as draw_comparison
from jaxtickets.report.figures import draw_sweep as draw_sweep
from jaxtickets.report.markdown import markdown_benchmark as markdown_benchmark
from jaxtickets.report.markdown import markdown_results as markdown_results
from jaxtickets.report.markdown import read_results as read_results
from jaxtickets.report.markdown import replace_block as replace_block
from jaxtickets.report.results import finite as finite
from jaxtickets.report.results import results as results
from jaxtickets.report.results import results_table as results_table
from jaxtickets.report.schemes import draw_gains as draw_gains
from jaxtickets.report.schemes import draw_overlaps as draw_overlaps
from jaxtickets.report.schemes import markdown_schemes as markdown_schemes
from jaxtickets.report.schemes import schemes_table as schemes_table
from jaxtickets.report.timeline import draw_run as draw_run
