"""Handlers that answer feeds."""
