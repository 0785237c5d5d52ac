-- concurrently
-- Phase 4. What leads ask for.
CREATE INDEX CONCURRENTLY leads_interests ON wedding.leads USING gin (interests);
