"""Handlers for operators and orchestrators."""
