-- query: timeline_by_schedule
-- about: A page in the middle of a feed, by starts_at.
-- tier: standard
-- as: feed
-- uses: timeline_schedule
-- draw: SELECT tenant_id, starts_at, id FROM wedding.timeline WHERE tenant_id = $1 ORDER BY
--   starts_at, id OFFSET (SELECT count(*) / 2 FROM wedding.timeline WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.timeline
WHERE tenant_id = $1 AND (starts_at, id) > ($2, $3)
ORDER BY starts_at, id LIMIT 50;

-- query: timeline_of_a_couple
-- about: One couple's rows, in the order of their key.
-- tier: standard
-- as: feed
-- uses: timeline_client
-- draw: SELECT tenant_id, client_id FROM wedding.timeline WHERE tenant_id = $1 AND client_id IS
--   NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.timeline
WHERE tenant_id = $1 AND client_id = $2
ORDER BY id LIMIT 50;
