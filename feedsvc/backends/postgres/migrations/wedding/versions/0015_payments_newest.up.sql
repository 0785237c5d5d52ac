-- concurrently
-- Phase 2. A feed's order.
CREATE INDEX CONCURRENTLY payments_newest ON wedding.payments (tenant_id, created_at, id);
