-- concurrently
-- Phase 6. Reviews that wait for a moderator.
CREATE INDEX CONCURRENTLY reviews_held
    ON wedding.reviews (tenant_id, created_at, id) WHERE NOT published;
