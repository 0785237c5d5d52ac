-- query: conversation_of_a_couple
-- about: The end of a couple's conversation.
-- tier: critical
-- as: feed
-- uses: messages_client
-- draw: SELECT tenant_id, client_id FROM wedding.messages WHERE tenant_id = $1 AND client_id IS
--   NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.messages
WHERE tenant_id = $1 AND client_id = $2
ORDER BY sent_at DESC, id DESC LIMIT 50;

-- query: messages_of_a_month
-- about: A month of all tenants, for the report.
-- tier: analytics
-- as: office
-- uses: messages_sent
-- draw: SELECT min(sent_at) + interval '200 days' FROM wedding.messages WHERE tenant_id = $1
SELECT sender, count(*) FROM wedding.messages
WHERE sent_at >= $1 AND sent_at < $1 + interval '30 days'
GROUP BY sender;

-- query: messages_by_age
-- about: A page in the middle of a feed, by sent_at.
-- tier: standard
-- as: feed
-- uses: messages_newest
-- draw: SELECT tenant_id, sent_at, id FROM wedding.messages WHERE tenant_id = $1 ORDER BY sent_at,
--   id OFFSET (SELECT count(*) / 2 FROM wedding.messages WHERE tenant_id = $1) LIMIT 1
SELECT * FROM wedding.messages
WHERE tenant_id = $1 AND (sent_at, id) > ($2, $3)
ORDER BY sent_at, id LIMIT 50;

-- query: messages_with_words
-- about: Messages with these words.
-- tier: standard
-- as: office
-- uses: messages_words
-- draw: SELECT $1::text, 'lanterns & friday'::text
SELECT * FROM wedding.messages
WHERE tenant_id = $1 AND to_tsvector('simple', body) @@ to_tsquery('simple', $2)
LIMIT 50;

-- query: messages_unread
-- about: Messages that wait for the office, the oldest first.
-- tier: critical
-- as: feed
-- uses: messages_unread
-- draw: SELECT $1::text
SELECT * FROM wedding.messages
WHERE tenant_id = $1 AND read_at IS NULL
ORDER BY sent_at, id LIMIT 50;
