-- query: payment_by_reference
-- about: A line of the bank's statement.
-- tier: critical
-- as: feed
-- uses: payments_reference
-- draw: SELECT tenant_id, reference FROM wedding.payments WHERE tenant_id = $1 AND reference IS
--   NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.payments
WHERE tenant_id = $1 AND reference = $2;

-- query: payments_by_age
-- about: A page in the middle of a feed, by created_at.
-- tier: standard
-- as: feed
-- uses: payments_newest
-- draw: SELECT tenant_id, created_at, id FROM wedding.payments WHERE tenant_id = $1 ORDER BY
--   created_at, id OFFSET (SELECT count(*) / 2 FROM wedding.payments WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.payments
WHERE tenant_id = $1 AND (created_at, id) > ($2, $3)
ORDER BY created_at, id LIMIT 50;

-- query: payments_of_a_couple
-- about: A couple's payments.
-- tier: standard
-- as: feed
-- uses: payments_client
-- draw: SELECT tenant_id, client_id FROM wedding.payments WHERE tenant_id = $1 AND client_id IS
--   NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.payments
WHERE tenant_id = $1 AND client_id = $2
ORDER BY id LIMIT 50;

-- query: payments_received_in_a_week
-- about: What came in during a week.
-- tier: analytics
-- as: feed
-- uses: payments_paid
-- draw: SELECT tenant_id, min(paid_at) + interval '200 days' FROM wedding.payments WHERE tenant_id
--   = $1 GROUP BY 1
SELECT currency, sum(amount) FROM wedding.payments
WHERE tenant_id = $1 AND paid_at >= $2 AND paid_at < $2 + interval '7 days'
GROUP BY currency;

-- query: payments_overdue
-- about: Payments that are overdue.
-- tier: critical
-- as: feed
-- uses: payments_overdue
-- draw: SELECT tenant_id, max(due) - 30 FROM wedding.payments WHERE tenant_id = $1 GROUP BY 1
SELECT * FROM wedding.payments
WHERE tenant_id = $1 AND status = 'pending' AND due < $2
ORDER BY due, id LIMIT 50;

-- query: payments_of_a_contract
-- about: A contract's instalments: also how its foreign key looks.
-- tier: critical
-- as: feed
-- uses: payments_contract
-- draw: SELECT tenant_id, contract_id FROM wedding.payments WHERE tenant_id = $1 AND contract_id
--   IS NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.payments
WHERE tenant_id = $1 AND contract_id = $2
ORDER BY id LIMIT 50;
