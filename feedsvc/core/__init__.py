"""Modules that all others may import: problems, events, principals, logs, timing, draining."""
