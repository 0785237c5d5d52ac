-- concurrently
-- Phase 2. A couple's payments.
CREATE INDEX CONCURRENTLY payments_client ON wedding.payments (tenant_id, client_id, id);
