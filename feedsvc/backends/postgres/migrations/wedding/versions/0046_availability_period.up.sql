-- concurrently
-- Phase 4. Who is free on a day.
CREATE INDEX CONCURRENTLY availability_period ON wedding.availability USING gist (period);
