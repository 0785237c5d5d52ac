-- concurrently
-- Phase 3, time series. A day of all tenants: rows lie in the order of time, so a few bytes for
-- every range of pages do what a btree of many megabytes would.
CREATE INDEX CONCURRENTLY messages_sent
    ON wedding.messages USING brin (sent_at) WITH (pages_per_range = 8);
