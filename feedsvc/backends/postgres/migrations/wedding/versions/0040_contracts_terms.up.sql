-- concurrently
-- Phase 4. Terms of contracts.
CREATE INDEX CONCURRENTLY contracts_terms ON wedding.contracts USING gin (terms jsonb_path_ops);
