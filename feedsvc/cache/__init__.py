"""First pages, kept in memory and in Redis, and never older than what PostgreSQL has told."""
