"""Which channels of a network belong together, read off its jaxpr."""

from jaxtickets.coupling.labels import OUTPUTS
from jaxtickets.coupling.walk import Coupling, couple

__all__ = ["OUTPUTS", "Coupling", "couple"]
