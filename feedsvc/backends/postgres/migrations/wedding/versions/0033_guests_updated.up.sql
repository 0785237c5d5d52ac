-- concurrently
-- Phase 3. What has changed since, for a phone that was away.
CREATE INDEX CONCURRENTLY guests_updated ON wedding.guests (tenant_id, updated_at, id);
