-- concurrently
-- Phase 3. A feed's order.
CREATE INDEX CONCURRENTLY leads_newest ON wedding.leads (tenant_id, created_at, id);
