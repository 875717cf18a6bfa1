"""Pictures of an evaluation, one subject a file; each has its numbers in a .csv beside it."""

from jaxtickets.report.pictures.calibration import draw_reliability as draw_reliability
from jaxtickets.report.pictures.corruptions import draw_corruptions as draw_corruptions
from jaxtickets.report.pictures.corruptions import draw_severities as draw_severities
from jaxtickets.report.pictures.depth import draw_depth as draw_depth
from jaxtickets.report.pictures.layers import draw_layers as draw_layers
from jaxtickets.report.pictures.matrices import draw_matrix as draw_matrix
from jaxtickets.report.pictures.paths import draw_paths as draw_paths
from jaxtickets.report.pictures.plane import draw_plane as draw_plane
from jaxtickets.report.pictures.subsets import draw_subsets as draw_subsets
from jaxtickets.report.pictures.trajectories import draw_trajectories as draw_trajectories
