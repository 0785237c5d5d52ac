"""The line `service`."""
