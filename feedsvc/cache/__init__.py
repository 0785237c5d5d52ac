"""First pages, kept in memory and in Redis, and never older than the last reported change."""
