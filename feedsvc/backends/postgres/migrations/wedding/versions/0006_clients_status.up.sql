-- concurrently
-- Phase 1. A status of the pipeline, the next wedding first: for the office, for an enum's
-- comparison is not leakproof and serves no feed.
CREATE INDEX CONCURRENTLY clients_status ON wedding.clients (tenant_id, status, wedding_date, id);
