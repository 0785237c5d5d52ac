-- concurrently
-- Phase 4. Words of the notes on a couple.
CREATE INDEX CONCURRENTLY clients_notes ON wedding.clients USING gin (to_tsvector('simple', notes));
