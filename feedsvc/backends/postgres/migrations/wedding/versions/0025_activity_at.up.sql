-- concurrently
-- Phase 3, time series. A day of all tenants: rows lie in the order of time, so a few bytes for
-- every range of pages do what a btree of many megabytes would.
CREATE INDEX CONCURRENTLY activity_at
    ON wedding.activity USING brin (at) WITH (pages_per_range = 16);
