-- query: budgets_by_change
-- about: A page in the middle of a feed, by updated_at.
-- tier: standard
-- as: feed
-- uses: budgets_updated
-- draw: SELECT tenant_id, updated_at, id FROM wedding.budgets WHERE tenant_id = $1 ORDER BY
--   updated_at, id OFFSET (SELECT count(*) / 2 FROM wedding.budgets WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.budgets
WHERE tenant_id = $1 AND (updated_at, id) > ($2, $3)
ORDER BY updated_at, id LIMIT 50;

-- query: budgets_of_a_couple
-- about: One couple's rows, in the order of their key.
-- tier: standard
-- as: feed
-- uses: budgets_client
-- draw: SELECT tenant_id, client_id FROM wedding.budgets WHERE tenant_id = $1 AND client_id IS NOT
--   NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.budgets
WHERE tenant_id = $1 AND client_id = $2
ORDER BY id LIMIT 50;

-- query: budgets_of_a_category
-- about: Lines of a category, by the day that they are due.
-- tier: standard
-- as: feed
-- uses: budgets_category
-- draw: SELECT tenant_id, category FROM wedding.budgets WHERE tenant_id = $1 AND category IS NOT
--   NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.budgets
WHERE tenant_id = $1 AND category = $2
ORDER BY due, id LIMIT 50;

-- query: budgets_unpaid
-- about: What is to be paid next.
-- tier: critical
-- as: feed
-- uses: budgets_unpaid
-- draw: SELECT $1::text
SELECT * FROM wedding.budgets
WHERE tenant_id = $1 AND NOT paid
ORDER BY due, id LIMIT 50;
