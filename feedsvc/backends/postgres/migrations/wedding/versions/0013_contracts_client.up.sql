-- concurrently
-- Phase 2. A couple's contracts.
CREATE INDEX CONCURRENTLY contracts_client ON wedding.contracts (tenant_id, client_id, id);
