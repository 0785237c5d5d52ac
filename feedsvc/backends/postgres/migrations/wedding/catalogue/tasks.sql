-- query: tasks_by_priority
-- about: A page in the middle of a feed, by priority.
-- tier: standard
-- as: feed
-- uses: tasks_priority
-- draw: SELECT tenant_id, priority, id FROM wedding.tasks WHERE tenant_id = $1 ORDER BY priority,
--   id OFFSET (SELECT count(*) / 2 FROM wedding.tasks WHERE tenant_id = $1) LIMIT 1
SELECT * FROM wedding.tasks
WHERE tenant_id = $1 AND (priority, id) > ($2, $3)
ORDER BY priority, id LIMIT 50;

-- query: tasks_by_change
-- about: A page in the middle of a feed, by updated_at.
-- tier: standard
-- as: feed
-- uses: tasks_updated
-- draw: SELECT tenant_id, updated_at, id FROM wedding.tasks WHERE tenant_id = $1 ORDER BY
--   updated_at, id OFFSET (SELECT count(*) / 2 FROM wedding.tasks WHERE tenant_id = $1) LIMIT
--   1
SELECT * FROM wedding.tasks
WHERE tenant_id = $1 AND (updated_at, id) > ($2, $3)
ORDER BY updated_at, id LIMIT 50;

-- query: tasks_of_a_couple
-- about: One couple's rows, in the order of their key.
-- tier: standard
-- as: feed
-- uses: tasks_client
-- draw: SELECT tenant_id, client_id FROM wedding.tasks WHERE tenant_id = $1 AND client_id IS NOT
--   NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.tasks
WHERE tenant_id = $1 AND client_id = $2
ORDER BY id LIMIT 50;

-- query: tasks_open
-- about: The next tasks.
-- tier: critical
-- as: feed
-- uses: tasks_open
-- draw: SELECT $1::text
SELECT * FROM wedding.tasks
WHERE tenant_id = $1 AND NOT done
ORDER BY due, id LIMIT 50;
