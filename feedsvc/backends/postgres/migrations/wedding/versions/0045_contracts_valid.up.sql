-- concurrently
-- Phase 4. Contracts that end or run on a day.
CREATE INDEX CONCURRENTLY contracts_valid ON wedding.contracts USING gist (valid);
