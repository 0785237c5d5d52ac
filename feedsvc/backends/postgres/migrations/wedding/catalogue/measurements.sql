-- query: measurements_of_a_month
-- about: A month of all tenants, for the report.
-- tier: analytics
-- as: office
-- uses: measurements_at
-- draw: SELECT min(at) + interval '200 days' FROM wedding.measurements WHERE tenant_id = $1
SELECT failed, count(*) FROM wedding.measurements
WHERE at >= $1 AND at < $1 + interval '30 days'
GROUP BY failed;

-- query: measurements_of_a_page
-- about: The latest response times of a page.
-- tier: standard
-- as: feed
-- uses: measurements_page
-- draw: SELECT tenant_id, page FROM wedding.measurements WHERE tenant_id = $1 AND page IS NOT NULL
--   ORDER BY id LIMIT 1
SELECT * FROM wedding.measurements
WHERE tenant_id = $1 AND page = $2
ORDER BY at DESC, id DESC LIMIT 100;

-- query: measurements_that_were_slow
-- about: Pages that took over a second.
-- tier: standard
-- as: office
-- uses: measurements_slow
-- draw: SELECT $1::text
SELECT * FROM wedding.measurements
WHERE tenant_id = $1 AND milliseconds > 1000
ORDER BY at DESC, id DESC LIMIT 50;
