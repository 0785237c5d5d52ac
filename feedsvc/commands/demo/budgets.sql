-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH words AS (
    SELECT ARRAY['venue', 'catering', 'flowers', 'music', 'photography', 'attire', 'cake', 'rings',
                 'transport', 'stationery', 'favours', 'honeymoon'] AS category,
           ARRAY['first instalment', 'deposit, "non-refundable"', 'refund; see e-mail',
                 'balance', 'O''Hara & Daughters', '=B2*1.2', 'extra hour', ''] AS description
), lines AS (
    SELECT tenant, base + n AS client, k, hashint8extended((base + n) * 16 + k, $5 # 21) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         -- Every tenant's first couples have a full budget, the mass about one line each.
         generate_series(1, CASE WHEN n <= 50 THEN 6 ELSE hashint8extended(n, $5) & 3 END) AS k
    WHERE n <= 50 OR k <> 2
    OFFSET 0
)
INSERT INTO wedding.budgets (
    id, tenant_id, client_id, category, description, planned, spent, currency, due, paid, updated_at
)
SELECT
    overlay(md5('budget:' || client || ':' || k || ':' || $5) PLACING '4' FROM 13 FOR 1)::uuid,
    tenant, client, category[1 + (h & 1023) % 12],
    CASE WHEN h >> 10 & 3 > 0 THEN description[1 + (h >> 12 & 7)] END,
    (h >> 15 & 1048575) / 100.0,
    CASE h >> 35 & 15 WHEN 0 THEN -(h >> 39 & 65535) / 100.0  -- a refund
                      WHEN 1 THEN 0
                      WHEN 2 THEN NULL WHEN 3 THEN NULL WHEN 4 THEN NULL
                      ELSE (h >> 16 & 1048575) / 100.0 END,
    currency,
    CASE WHEN h >> 55 & 7 > 0 THEN date '2024-01-01' + (h >> 44 & 1023)::int END,
    h >> 58 & 1 = 1,
    timestamptz '2025-06-01 00:00+00' - (h >> 20 & 33554431) * interval '1 second'
FROM lines JOIN wedding.tenants t ON t.id = tenant, words;
