-- concurrently
-- Phase 2. The contracts that wait for a signature, the oldest first.
CREATE INDEX CONCURRENTLY contracts_status ON wedding.contracts (tenant_id, status, created_at, id);
