-- concurrently
-- Phase 3. What came in during a week.
CREATE INDEX CONCURRENTLY payments_paid ON wedding.payments (tenant_id, paid_at);
