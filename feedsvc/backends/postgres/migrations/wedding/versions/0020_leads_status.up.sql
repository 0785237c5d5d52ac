-- concurrently
-- Phase 2. The leads of a status.
CREATE INDEX CONCURRENTLY leads_status ON wedding.leads (tenant_id, status, created_at, id);
