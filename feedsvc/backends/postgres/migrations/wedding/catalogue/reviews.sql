-- query: reviews_of_a_vendor
-- about: A vendor's newest reviews.
-- tier: standard
-- as: feed
-- uses: reviews_vendor
-- draw: SELECT tenant_id, vendor_id FROM wedding.reviews WHERE tenant_id = $1 AND vendor_id IS NOT
--   NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.reviews
WHERE tenant_id = $1 AND vendor_id = $2
ORDER BY created_at DESC, id DESC LIMIT 20;

-- query: reviews_by_age
-- about: A page in the middle of a feed, by created_at.
-- tier: standard
-- as: feed
-- uses: reviews_newest
-- draw: SELECT tenant_id, created_at, id FROM wedding.reviews WHERE tenant_id = $1 ORDER BY
--   created_at, id OFFSET (SELECT count(*) / 2 FROM wedding.reviews WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.reviews
WHERE tenant_id = $1 AND (created_at, id) > ($2, $3)
ORDER BY created_at, id LIMIT 50;

-- query: reviews_with_words
-- about: Reviews with these words.
-- tier: standard
-- as: office
-- uses: reviews_words
-- draw: SELECT $1::text, 'carriage & late'::text
SELECT * FROM wedding.reviews
WHERE tenant_id = $1 AND to_tsvector('simple', body) @@ to_tsquery('simple', $2)
LIMIT 50;

-- query: reviews_to_moderate
-- about: Reviews that wait for a moderator.
-- tier: standard
-- as: feed
-- uses: reviews_held
-- draw: SELECT $1::text
SELECT * FROM wedding.reviews
WHERE tenant_id = $1 AND NOT published
ORDER BY created_at, id LIMIT 50;

-- query: reviews_of_a_couple
-- about: A couple's reviews: also how its foreign key looks.
-- tier: standard
-- as: feed
-- uses: reviews_client
-- draw: SELECT tenant_id, client_id FROM wedding.reviews WHERE tenant_id = $1 AND client_id IS NOT
--   NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.reviews
WHERE tenant_id = $1 AND client_id = $2;
