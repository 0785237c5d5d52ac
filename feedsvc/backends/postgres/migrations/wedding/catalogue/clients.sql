-- query: clients_by_age
-- about: A page in the middle of a feed, by created_at.
-- tier: standard
-- as: feed
-- uses: clients_newest
-- draw: SELECT tenant_id, created_at, id FROM wedding.clients WHERE tenant_id = $1 ORDER BY
--   created_at, id OFFSET (SELECT count(*) / 2 FROM wedding.clients WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.clients
WHERE tenant_id = $1 AND (created_at, id) > ($2, $3)
ORDER BY created_at, id LIMIT 50;

-- query: clients_by_name
-- about: A page in the middle of a feed, by partner_one.
-- tier: standard
-- as: feed
-- uses: clients_name
-- draw: SELECT tenant_id, partner_one, id FROM wedding.clients WHERE tenant_id = $1 ORDER BY
--   partner_one, id OFFSET (SELECT count(*) / 2 FROM wedding.clients WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.clients
WHERE tenant_id = $1 AND (partner_one, id) > ($2, $3)
ORDER BY partner_one, id LIMIT 50;

-- query: clients_marrying_in_a_week
-- about: The weddings of a week.
-- tier: standard
-- as: feed
-- uses: clients_wedding_date
-- draw: SELECT tenant_id, min(wedding_date) + 200 FROM wedding.clients WHERE tenant_id = $1 GROUP
--   BY 1
SELECT * FROM wedding.clients
WHERE tenant_id = $1 AND wedding_date >= $2 AND wedding_date < $2 + 7
ORDER BY wedding_date LIMIT 50;

-- query: client_by_email
-- about: Who wrote this e-mail?
-- tier: critical
-- as: office
-- uses: clients_email
-- draw: SELECT tenant_id, lower(email) FROM wedding.clients WHERE tenant_id = $1 AND lower(email)
--   IS NOT NULL AND email LIKE '%@%' ORDER BY id LIMIT 1
SELECT * FROM wedding.clients
WHERE tenant_id = $1 AND lower(email) = $2;

-- query: clients_in_planning
-- about: The office's first screen.
-- tier: critical
-- as: office
-- uses: clients_status
-- draw: SELECT $1::text, 'planning'::wedding.client_status
SELECT * FROM wedding.clients
WHERE tenant_id = $1 AND status = $2
ORDER BY wedding_date, id LIMIT 50;

-- query: clients_by_change
-- about: A page in the middle of a feed, by updated_at.
-- tier: standard
-- as: feed
-- uses: clients_updated
-- draw: SELECT tenant_id, updated_at, id FROM wedding.clients WHERE tenant_id = $1 ORDER BY
--   updated_at, id OFFSET (SELECT count(*) / 2 FROM wedding.clients WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.clients
WHERE tenant_id = $1 AND (updated_at, id) > ($2, $3)
ORDER BY updated_at, id LIMIT 50;

-- query: clients_with_words
-- about: Couples whose notes have these words.
-- tier: standard
-- as: office
-- uses: clients_notes
-- draw: SELECT $1::text, 'quartet & allergy'::text
SELECT * FROM wedding.clients
WHERE tenant_id = $1 AND to_tsvector('simple', notes) @@ to_tsquery('simple', $2)
LIMIT 50;

-- query: client_by_phone
-- about: Which couple is calling? Families share a number: the newest first.
-- tier: critical
-- as: feed
-- uses: clients_phone
-- draw: SELECT tenant_id, phone FROM wedding.clients WHERE tenant_id = $1 AND phone IS NOT NULL
--   ORDER BY id LIMIT 1
SELECT * FROM wedding.clients
WHERE tenant_id = $1 AND phone = $2
ORDER BY id DESC LIMIT 10;
