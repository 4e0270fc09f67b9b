"""Finished runs loaded again, and what their models answer."""
