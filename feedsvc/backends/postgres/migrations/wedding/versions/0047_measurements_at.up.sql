-- concurrently
-- Phase 5, performance metrics. A day of all tenants: rows lie in the order of time, so a few
-- bytes for every range of pages do what a btree of many megabytes would.
CREATE INDEX CONCURRENTLY measurements_at
    ON wedding.measurements USING brin (at) WITH (pages_per_range = 8);
