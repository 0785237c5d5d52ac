-- query: figures_of_a_year
-- about: The dashboard's chart of the last twelve months.
-- tier: analytics
-- as: feed
-- uses: month_figures_key
-- draw: SELECT $1::text, max(month) FROM wedding.month_figures_kept WHERE tenant_id = $1
SELECT * FROM wedding.month_figures
WHERE tenant_id = $1 AND month > ($2::date - 365) ORDER BY month;

-- query: figures_of_a_vendor
-- about: A vendor's own figures.
-- tier: critical
-- as: feed
-- uses: vendor_figures_key
-- draw: SELECT tenant_id, vendor_id FROM wedding.vendor_figures_kept WHERE tenant_id = $1
--   ORDER BY vendor_id LIMIT 1
SELECT * FROM wedding.vendor_figures WHERE tenant_id = $1 AND vendor_id = $2;
