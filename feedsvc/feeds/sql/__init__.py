"""SQL statements of feeds."""
