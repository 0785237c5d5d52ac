-- query: activity_of_a_month
-- about: A month of all tenants, for the report.
-- tier: analytics
-- as: office
-- uses: activity_at
-- draw: SELECT min(at) + interval '200 days' FROM wedding.activity WHERE tenant_id = $1
SELECT action, count(*) FROM wedding.activity
WHERE at >= $1 AND at < $1 + interval '30 days'
GROUP BY action;

-- query: activity_by_age
-- about: A page in the middle of a feed, by at.
-- tier: standard
-- as: feed
-- uses: activity_newest
-- draw: SELECT tenant_id, at, id FROM wedding.activity WHERE tenant_id = $1 ORDER BY at, id OFFSET
--   (SELECT count(*) / 2 FROM wedding.activity WHERE tenant_id = $1) LIMIT 1
SELECT * FROM wedding.activity
WHERE tenant_id = $1 AND (at, id) > ($2, $3)
ORDER BY at, id LIMIT 50;

-- query: activity_of_a_couple
-- about: A couple's history: also how its foreign key looks.
-- tier: standard
-- as: feed
-- uses: activity_client
-- draw: SELECT tenant_id, client_id FROM wedding.activity WHERE tenant_id = $1 AND client_id IS
--   NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.activity
WHERE tenant_id = $1 AND client_id = $2
ORDER BY at DESC, id DESC LIMIT 50;
