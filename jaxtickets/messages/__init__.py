"""Checks of arguments and their messages; how values and trees are quoted; how tables print."""
