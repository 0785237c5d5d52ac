-- The tenant whose rows a proof is made with: an index that helps it helps all others.
SELECT tenant_id FROM wedding.clients GROUP BY tenant_id ORDER BY count(*) DESC, tenant_id LIMIT 1
