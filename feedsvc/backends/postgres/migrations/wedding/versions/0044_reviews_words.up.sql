-- concurrently
-- Phase 4. Words of reviews.
CREATE INDEX CONCURRENTLY reviews_words ON wedding.reviews USING gin (to_tsvector('simple', body));
