-- concurrently
-- Phase 3. A feed's order.
CREATE INDEX CONCURRENTLY documents_newest ON wedding.documents (tenant_id, uploaded_at, id);
