"""Reports of the last hour, day and week, merged from every worker's minutes."""
