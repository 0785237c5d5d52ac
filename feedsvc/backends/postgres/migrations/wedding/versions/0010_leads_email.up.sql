-- concurrently
-- Phase 1. Whether an address has written before.
CREATE INDEX CONCURRENTLY leads_email ON wedding.leads (tenant_id, lower(email));
