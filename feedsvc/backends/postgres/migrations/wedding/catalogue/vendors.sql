-- query: vendors_by_name
-- about: A page in the middle of a feed, by name.
-- tier: standard
-- as: feed
-- uses: vendors_name
-- draw: SELECT tenant_id, name, id FROM wedding.vendors WHERE tenant_id = $1 ORDER BY name, id
--   OFFSET (SELECT count(*) / 2 FROM wedding.vendors WHERE tenant_id = $1) LIMIT 1
SELECT * FROM wedding.vendors
WHERE tenant_id = $1 AND (name, id) > ($2, $3)
ORDER BY name, id LIMIT 50;

-- query: vendor_by_email
-- about: Which vendor wrote this e-mail?
-- tier: critical
-- as: office
-- uses: vendors_email
-- draw: SELECT tenant_id, lower(email) FROM wedding.vendors WHERE tenant_id = $1 AND lower(email)
--   IS NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.vendors
WHERE tenant_id = $1 AND lower(email) = $2;

-- query: vendors_of_a_trade
-- about: The best vendors of a trade.
-- tier: standard
-- as: feed
-- uses: vendors_trade
-- draw: SELECT tenant_id, trade FROM wedding.vendors WHERE tenant_id = $1 AND trade IS NOT NULL
--   ORDER BY id LIMIT 1
SELECT * FROM wedding.vendors
WHERE tenant_id = $1 AND trade = $2
ORDER BY rating DESC NULLS LAST, id LIMIT 10;
