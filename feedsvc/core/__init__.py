"""What every other package may import: problems, events, principals, logs, timing, draining."""
