-- concurrently
-- Phase 7, foreign keys without an index: without it, a contract can't be erased without reading
-- all of this table.
CREATE INDEX CONCURRENTLY payments_contract ON wedding.payments (tenant_id, contract_id, id);
