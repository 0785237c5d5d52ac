-- concurrently
-- Phase 6. Calls that were promised.
CREATE INDEX CONCURRENTLY leads_calls
    ON wedding.leads (tenant_id, next_call_at, id) WHERE next_call_at IS NOT NULL;
