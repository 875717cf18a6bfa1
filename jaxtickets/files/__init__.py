"""Paths that users give, and archives that anybody may have made."""
