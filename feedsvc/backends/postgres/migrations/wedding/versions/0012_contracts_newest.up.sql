-- concurrently
-- Phase 2, orders and common filters, the tenant first.
CREATE INDEX CONCURRENTLY contracts_newest ON wedding.contracts (tenant_id, created_at, id);
