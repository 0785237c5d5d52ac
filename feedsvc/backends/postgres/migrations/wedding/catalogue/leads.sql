-- query: lead_by_email
-- about: Has this address written before?
-- tier: critical
-- as: office
-- uses: leads_email
-- draw: SELECT tenant_id, lower(email) FROM wedding.leads WHERE tenant_id = $1 AND lower(email) IS
--   NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.leads
WHERE tenant_id = $1 AND lower(email) = $2;

-- query: leads_that_are_new
-- about: Leads that have had no answer.
-- tier: standard
-- as: feed
-- uses: leads_status
-- draw: SELECT $1::text, 'new'::text
SELECT * FROM wedding.leads
WHERE tenant_id = $1 AND status = $2
ORDER BY created_at DESC, id DESC LIMIT 50;

-- query: leads_by_age
-- about: A page in the middle of a feed, by created_at.
-- tier: standard
-- as: feed
-- uses: leads_newest
-- draw: SELECT tenant_id, created_at, id FROM wedding.leads WHERE tenant_id = $1 ORDER BY
--   created_at, id OFFSET (SELECT count(*) / 2 FROM wedding.leads WHERE tenant_id = $1) LIMIT
--   1
SELECT * FROM wedding.leads
WHERE tenant_id = $1 AND (created_at, id) > ($2, $3)
ORDER BY created_at, id LIMIT 50;

-- query: leads_of_two_interests
-- about: Couples to write to about castles for a theme.
-- tier: standard
-- as: office
-- uses: leads_interests
-- draw: SELECT $1::text, ARRAY['castle', 'theme 7']
SELECT * FROM wedding.leads
WHERE tenant_id = $1 AND interests @> $2
LIMIT 50;

-- query: leads_of_a_campaign
-- about: The latest leads of a campaign, to tell whether it pays.
-- tier: standard
-- as: office
-- uses: leads_campaign
-- draw: SELECT tenant_id, metadata ->> 'campaign' FROM wedding.leads WHERE tenant_id = $1 ORDER BY
--   id LIMIT 1
SELECT * FROM wedding.leads
WHERE tenant_id = $1 AND metadata ->> 'campaign' = $2
ORDER BY created_at DESC, id DESC LIMIT 50;

-- query: leads_to_call
-- about: Whom to call next.
-- tier: critical
-- as: feed
-- uses: leads_calls
-- draw: SELECT $1::text
SELECT * FROM wedding.leads
WHERE tenant_id = $1 AND next_call_at IS NOT NULL
ORDER BY next_call_at, id LIMIT 50;

-- query: leads_of_a_couple
-- about: The lead that became this couple: also how its foreign key looks.
-- tier: standard
-- as: feed
-- uses: leads_client
-- draw: SELECT tenant_id, client_id FROM wedding.leads WHERE tenant_id = $1 AND client_id IS NOT
--   NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.leads
WHERE tenant_id = $1 AND client_id = $2;
