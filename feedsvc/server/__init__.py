"""Processes, signals, and the composition of all parts."""
