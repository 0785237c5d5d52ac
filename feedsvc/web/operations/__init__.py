"""Handlers that answer operators."""
