-- concurrently
-- Phase 6. Documents in the bin, of all tenants, for what erases them for good.
CREATE INDEX CONCURRENTLY documents_deleted
    ON wedding.documents (deleted_at) WHERE deleted_at IS NOT NULL;
