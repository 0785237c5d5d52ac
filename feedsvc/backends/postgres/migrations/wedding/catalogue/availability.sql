-- query: calendar_of_a_vendor
-- about: A vendor's calendar.
-- tier: standard
-- as: feed
-- uses: availability_vendor
-- draw: SELECT tenant_id, vendor_id FROM wedding.availability WHERE tenant_id = $1 AND vendor_id
--   IS NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.availability
WHERE tenant_id = $1 AND vendor_id = $2
ORDER BY period, id LIMIT 50;

-- query: vendors_free_on_a_day
-- about: Vendors that are free on a day.
-- tier: standard
-- as: office
-- uses: availability_period
-- draw: SELECT tenant_id, max(upper(period)) - 20 FROM wedding.availability WHERE tenant_id = $1
--   GROUP BY 1
SELECT vendor_id FROM wedding.availability
WHERE tenant_id = $1 AND period @> $2::date AND state = 'free';
