"""What training leaves: tickets, ensembles of them, and their files.

An ensemble is saved as one safetensors file. Nothing in it is executed, and nothing in it is
believed. For every member and leaf of the params it holds the surviving values, row-major, and for
prunable leaves the mask, eight weights a byte. Batch statistics are stored whole. The metadata is
one JSON text under the key "jaxtickets": format, the task's name, the tree of the input, plan,
info, of shrunk and packed tickets the shapes that are not the task's, and a SHA-256 over all
tensors and the rest of the metadata. The same ensemble gives the same bytes.

An exported ensemble (`program_file`, `onnx_file`) is a program with its weights, which needs none
of this package's networks.
"""

from jaxtickets.tickets.ensemble import TicketEnsemble, load
from jaxtickets.tickets.function import PredictiveFunction
from jaxtickets.tickets.packing import pack, unpack
from jaxtickets.tickets.program_file import ExportedFunction, load_exported
from jaxtickets.tickets.reading import about
from jaxtickets.tickets.shrinking import shrink
from jaxtickets.tickets.stored import StoredTickets
from jaxtickets.tickets.ticket import Ticket

__all__ = [
    "ExportedFunction",
    "PredictiveFunction",
    "StoredTickets",
    "Ticket",
    "TicketEnsemble",
    "about",
    "load",
    "load_exported",
    "pack",
    "shrink",
    "unpack",
]
