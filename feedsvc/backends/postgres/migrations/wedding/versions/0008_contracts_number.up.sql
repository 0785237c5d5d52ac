-- concurrently
-- Phase 1. A contract by the number that is printed on it.
CREATE INDEX CONCURRENTLY contracts_number ON wedding.contracts (tenant_id, number);
