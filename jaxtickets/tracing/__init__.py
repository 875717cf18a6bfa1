"""Reads properties of a network off its traced program (its jaxpr).

Its FLOPs, its last layer, which channels belong together, which inputs are row numbers.
"""
