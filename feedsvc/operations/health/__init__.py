"""Checks of the service and its dependencies in the background, and repairs by name."""
