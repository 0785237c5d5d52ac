-- concurrently
-- Phase 6. Tasks that are open, the next one first.
CREATE INDEX CONCURRENTLY tasks_open ON wedding.tasks (tenant_id, due, id) WHERE NOT done;
