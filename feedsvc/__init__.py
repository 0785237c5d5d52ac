"""feedsvc: PostgreSQL's rows as JSON, CSV, NDJSON and SSE."""
