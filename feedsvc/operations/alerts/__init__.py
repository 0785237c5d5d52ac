"""Alerts: rules over the figures of the last minute or two, and their messages."""
