-- concurrently
-- Phase 5. What was slow: one in thirty, so the index has one entry of thirty.
CREATE INDEX CONCURRENTLY measurements_slow
    ON wedding.measurements (tenant_id, at, id) WHERE milliseconds > 1000;
