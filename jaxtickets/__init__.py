"""jaxtickets."""
