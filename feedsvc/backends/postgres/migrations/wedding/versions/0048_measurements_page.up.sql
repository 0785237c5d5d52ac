-- concurrently
-- Phase 5. A page's response times, the newest first.
CREATE INDEX CONCURRENTLY measurements_page ON wedding.measurements (tenant_id, page, at, id);
