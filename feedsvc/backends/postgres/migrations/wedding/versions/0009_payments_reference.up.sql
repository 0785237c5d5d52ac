-- concurrently
-- Phase 1. A payment by the reference in the bank's statement.
CREATE INDEX CONCURRENTLY payments_reference ON wedding.payments (tenant_id, reference);
