"""Ticket files: one safetensors file per ensemble. Nothing in it is executed, and nothing in it is believed.

For every member and leaf of the params: the surviving values, row-major, and for prunable leaves the mask, eight weights
a byte. Batch statistics are stored whole. The metadata is one JSON text under the key "jaxtickets": format, the task's name, the
tree of the input, plan, info, of shrunk tickets the shapes that are not the task's, and a SHA-256 over all tensors and the rest of
the metadata. The same ensemble gives the same bytes.
"""

from jaxtickets.ticket_file.reading import StoredTickets, about, load
from jaxtickets.ticket_file.writing import write

__all__ = ["StoredTickets", "about", "load", "write"]
