"""Errors of migrations."""

from __future__ import annotations


class MigrationError(Exception):
    """A migration could not be run; the message has the remedy."""


class MigrationBusyError(MigrationError):
    """Another process kept this line's lock for longer than the caller wanted to wait."""


class UnknownRevisionError(MigrationError):
    """The database is at a revision that only a newer release knows."""
