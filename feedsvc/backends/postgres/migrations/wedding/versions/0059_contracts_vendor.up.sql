-- concurrently
-- Phase 7, foreign keys without an index: without it, a vendor can't be erased without reading
-- all of this table.
CREATE INDEX CONCURRENTLY contracts_vendor ON wedding.contracts (tenant_id, vendor_id, id);
