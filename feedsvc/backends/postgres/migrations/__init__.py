"""Migrations in two independent lines: `service` for any database, `wedding` for the demo's."""
