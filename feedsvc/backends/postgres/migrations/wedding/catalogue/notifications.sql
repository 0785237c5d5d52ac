-- query: notifications_by_age
-- about: A page in the middle of a feed, by sent_at.
-- tier: standard
-- as: feed
-- uses: notifications_newest
-- draw: SELECT tenant_id, sent_at, id FROM wedding.notifications WHERE tenant_id = $1 ORDER BY
--   sent_at, id OFFSET (SELECT count(*) / 2 FROM wedding.notifications WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.notifications
WHERE tenant_id = $1 AND (sent_at, id) > ($2, $3)
ORDER BY sent_at, id LIMIT 50;

-- query: notifications_of_a_couple
-- about: What a couple's phone shows first.
-- tier: critical
-- as: feed
-- uses: notifications_client
-- draw: SELECT tenant_id, client_id FROM wedding.notifications WHERE tenant_id = $1 AND client_id
--   IS NOT NULL ORDER BY client_id LIMIT 1
SELECT * FROM wedding.notifications
WHERE tenant_id = $1 AND client_id = $2
ORDER BY id LIMIT 50;

-- query: notifications_unread
-- about: Notifications that were not read.
-- tier: critical
-- as: feed
-- uses: notifications_unread
-- draw: SELECT $1::text
SELECT * FROM wedding.notifications
WHERE tenant_id = $1 AND read_at IS NULL
ORDER BY sent_at DESC, id DESC LIMIT 50;
