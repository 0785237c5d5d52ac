"""Feeds: a query, its SQL and its rows."""
