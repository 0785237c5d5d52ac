"""Rows and progress in, bytes out: no socket and no database."""
