-- concurrently
-- Phase 4. One key of the metadata, by which campaigns are looked at: of one key a btree is smaller than
-- a GIN index of all, and has an order.
CREATE INDEX CONCURRENTLY leads_campaign
    ON wedding.leads (tenant_id, (metadata ->> 'campaign'), created_at, id);
