-- query: contract_by_number
-- about: The contract that a caller holds in hand.
-- tier: critical
-- as: feed
-- uses: contracts_number
-- draw: SELECT tenant_id, number FROM wedding.contracts WHERE tenant_id = $1 AND number IS NOT
--   NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.contracts
WHERE tenant_id = $1 AND number = $2;

-- query: contracts_by_age
-- about: A page in the middle of a feed, by created_at.
-- tier: standard
-- as: feed
-- uses: contracts_newest
-- draw: SELECT tenant_id, created_at, id FROM wedding.contracts WHERE tenant_id = $1 ORDER BY
--   created_at, id OFFSET (SELECT count(*) / 2 FROM wedding.contracts WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.contracts
WHERE tenant_id = $1 AND (created_at, id) > ($2, $3)
ORDER BY created_at, id LIMIT 50;

-- query: contracts_of_a_couple
-- about: A couple's contracts.
-- tier: standard
-- as: feed
-- uses: contracts_client
-- draw: SELECT tenant_id, client_id FROM wedding.contracts WHERE tenant_id = $1 AND client_id IS
--   NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.contracts
WHERE tenant_id = $1 AND client_id = $2
ORDER BY id LIMIT 50;

-- query: contracts_unsigned
-- about: Contracts that wait for a signature.
-- tier: standard
-- as: feed
-- uses: contracts_status
-- draw: SELECT $1::text, 'sent'::text
SELECT * FROM wedding.contracts
WHERE tenant_id = $1 AND status = $2
ORDER BY created_at, id LIMIT 50;

-- query: contracts_of_a_term
-- about: Contracts with a deposit of 40 %, before that is changed for new ones.
-- tier: standard
-- as: office
-- uses: contracts_terms
-- draw: SELECT $1::text, '{"deposit": 40}'::jsonb
SELECT * FROM wedding.contracts
WHERE tenant_id = $1 AND terms @> $2
LIMIT 50;

-- query: contracts_in_force
-- about: Contracts that are in force on a day.
-- tier: standard
-- as: office
-- uses: contracts_valid
-- draw: SELECT tenant_id, min(lower(valid)) + 10 FROM wedding.contracts WHERE tenant_id = $1 GROUP
--   BY 1
SELECT * FROM wedding.contracts
WHERE tenant_id = $1 AND valid @> $2::date
LIMIT 50;

-- query: contracts_before_erasing_a_vendor
-- about: Whether a vendor without contracts has any: what its foreign key asks when it is erased.
-- tier: standard
-- as: office
-- uses: contracts_vendor
-- draw: SELECT tenant_id, max(id) FROM wedding.vendors WHERE tenant_id = $1 GROUP BY tenant_id
SELECT id FROM wedding.contracts
WHERE tenant_id = $1 AND vendor_id = $2;
