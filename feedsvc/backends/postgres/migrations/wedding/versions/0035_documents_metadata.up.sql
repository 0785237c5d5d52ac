-- concurrently
-- Phase 4, documents and words. Operators of JSON, arrays and words are not leakproof: these
-- serve the office, which names its tenant, and no feed.
CREATE INDEX CONCURRENTLY documents_metadata
    ON wedding.documents USING gin (metadata jsonb_path_ops);
