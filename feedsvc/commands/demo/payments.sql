-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
-- A contract has two instalments. Contracts are those of contracts.sql.
WITH lines AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id, base,
           hashint8extended((base + n) * 16 + k, $5 # 31) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 10 THEN 3 ELSE 1 END) AS k
    WHERE n <= 10 OR hashint8extended(n, $5 # 31) & 15 = 0
    OFFSET 0
), instalments AS (
    SELECT tenant, client, id AS contract, id * 2 + i AS id, i,
           hashint8extended(id * 2 + i, $5 # 32) AS h
    FROM lines, generate_series(0, 1) AS i
    OFFSET 0
), dated AS (
    SELECT *, timestamptz '2025-06-01 00:00+00' - (h >> 20 & 67108863) * interval '1 second' AS made,
           h & 15 AS state
    FROM instalments
    OFFSET 0
)
INSERT INTO wedding.payments (
    id, tenant_id, contract_id, client_id, amount, currency, status, due, paid_at, reference,
    created_at
)
SELECT
    d.id, tenant, contract, client, (h >> 15 & 1048575) / 100.0, currency,
    CASE WHEN state < 11 THEN 'paid' WHEN state < 14 THEN 'pending' WHEN state < 15 THEN 'failed'
         ELSE 'refunded' END,
    made::date + (h >> 47 & 127)::int,
    CASE WHEN state < 11 THEN made + (h >> 8 & 1023) * interval '1 hour' END,
    'RF' || d.id, made
FROM dated d JOIN wedding.tenants t ON t.id = tenant;
