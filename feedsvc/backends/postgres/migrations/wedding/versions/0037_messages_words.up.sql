-- concurrently
-- Phase 4. Words of messages, in whatever language: `simple` has no stems.
CREATE INDEX CONCURRENTLY messages_words
    ON wedding.messages USING gin (to_tsvector('simple', body));
