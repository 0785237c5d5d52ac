-- query: analytics_of_a_metric
-- about: A chart of one figure.
-- tier: standard
-- as: feed
-- uses: analytics_metric
-- draw: SELECT $1::text, 'revenue'::text
SELECT * FROM wedding.analytics
WHERE tenant_id = $1 AND metric = $2
ORDER BY day DESC LIMIT 30;
