-- concurrently
-- Phase 7, foreign keys without an index: without it, a couple can't be erased without reading
-- all of this table.
CREATE INDEX CONCURRENTLY reviews_client ON wedding.reviews (tenant_id, client_id, id);
