-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH lines AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id, base,
           hashint8extended((base + n) * 16 + k, $5 # 31) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 10 THEN 3 ELSE 1 END) AS k
    WHERE n <= 10 OR hashint8extended(n, $5 # 31) & 15 = 0
    OFFSET 0
), dated AS (
    SELECT *, timestamptz '2025-06-01 00:00+00' - (h >> 20 & 67108863) * interval '1 second' AS made,
           h & 15 AS state
    FROM lines
    OFFSET 0
)
INSERT INTO wedding.contracts (
    id, tenant_id, client_id, vendor_id, number, status, amount, signed_at, valid, terms, created_at
)
SELECT
    id, tenant, client, base + 1 + (h >> 4 & 15),  -- every tenant has 20 vendors
    'C-' || id,
    CASE WHEN state < 9 THEN 'signed' WHEN state < 12 THEN 'sent' WHEN state < 14 THEN 'draft'
         ELSE 'cancelled' END,
    (h >> 15 & 1048575) / 100.0,
    CASE WHEN state < 9 THEN made + (h >> 8 & 1023) * interval '1 hour' END,
    daterange(made::date, made::date + 30 + (h >> 47 & 511)::int),
    CASE WHEN h >> 12 & 7 > 0 THEN jsonb_build_object(
        'deposit', h >> 40 & 63, 'insured', h >> 30 & 15 = 0,
        'clauses', jsonb_build_array('rain', (ARRAY['noise', 'candles', 'pets', 'drones'])
                                             [1 + (h >> 33 & 3)])) END,
    made
FROM dated;
