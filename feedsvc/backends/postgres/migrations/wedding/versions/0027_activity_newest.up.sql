-- concurrently
-- Phase 3. A feed's order.
CREATE INDEX CONCURRENTLY activity_newest ON wedding.activity (tenant_id, at, id);
