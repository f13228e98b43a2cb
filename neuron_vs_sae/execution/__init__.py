"""Runs of a model, and the only hooks."""
