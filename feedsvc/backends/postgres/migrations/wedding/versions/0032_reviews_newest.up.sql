-- concurrently
-- Phase 3. A feed's order.
CREATE INDEX CONCURRENTLY reviews_newest ON wedding.reviews (tenant_id, created_at, id);
