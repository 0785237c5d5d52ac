-- concurrently
-- Phase 3. What has changed since, for a phone that was away.
CREATE INDEX CONCURRENTLY clients_updated ON wedding.clients (tenant_id, updated_at, id);
