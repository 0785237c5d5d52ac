-- concurrently
-- Phase 4. Words again: guests by how their name begins, whatever the database's collation.
CREATE INDEX CONCURRENTLY guests_name
    ON wedding.guests (tenant_id, lower(name) text_pattern_ops);
