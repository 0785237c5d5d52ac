-- query: guest_by_email
-- about: Which guest answers?
-- tier: critical
-- as: office
-- uses: guests_email
-- draw: SELECT tenant_id, lower(email) FROM wedding.guests WHERE tenant_id = $1 AND lower(email)
--   IS NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.guests
WHERE tenant_id = $1 AND lower(email) = $2;

-- query: guests_of_a_couple
-- about: A couple's guests by name.
-- tier: standard
-- as: feed
-- uses: guests_client
-- draw: SELECT tenant_id, client_id FROM wedding.guests WHERE tenant_id = $1 AND client_id IS NOT
--   NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.guests
WHERE tenant_id = $1 AND client_id = $2
ORDER BY name, id LIMIT 50;

-- query: guests_by_change
-- about: A page in the middle of a feed, by updated_at.
-- tier: standard
-- as: feed
-- uses: guests_updated
-- draw: SELECT tenant_id, updated_at, id FROM wedding.guests WHERE tenant_id = $1 ORDER BY
--   updated_at, id OFFSET (SELECT count(*) / 2 FROM wedding.guests WHERE tenant_id = $1) LIMIT
--   1
SELECT * FROM wedding.guests
WHERE tenant_id = $1 AND (updated_at, id) > ($2, $3)
ORDER BY updated_at, id LIMIT 50;

-- query: guests_by_name
-- about: A guest who calls, by how the name begins, whatever the couple.
-- tier: standard
-- as: office
-- uses: guests_name
-- draw: SELECT tenant_id, lower(left(name, 10)) || '%' FROM wedding.guests WHERE tenant_id = $1
--   ORDER BY id LIMIT 1
SELECT * FROM wedding.guests
WHERE tenant_id = $1 AND lower(name) LIKE $2
LIMIT 50;

-- query: guests_unanswered
-- about: Invitations without an answer, the oldest first.
-- tier: standard
-- as: feed
-- uses: guests_unanswered
-- draw: SELECT $1::text
SELECT * FROM wedding.guests
WHERE tenant_id = $1 AND rsvp = 'pending'
ORDER BY updated_at, id LIMIT 50;
