-- concurrently
-- Phase 4. Tags of documents.
CREATE INDEX CONCURRENTLY documents_tags ON wedding.documents USING gin (tags);
