"""Loads finished runs, and generates with their models."""
