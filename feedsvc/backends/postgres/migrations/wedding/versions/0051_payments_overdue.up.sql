-- concurrently
-- Phase 6. Payments that are still to come.
CREATE INDEX CONCURRENTLY payments_overdue
    ON wedding.payments (tenant_id, due, id) WHERE status = 'pending';
