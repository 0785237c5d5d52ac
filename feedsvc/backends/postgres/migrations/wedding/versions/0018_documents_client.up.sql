-- concurrently
-- Phase 2. A couple's documents.
CREATE INDEX CONCURRENTLY documents_client
    ON wedding.documents (tenant_id, client_id, uploaded_at, id);
