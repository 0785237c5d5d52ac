-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH words AS (
    SELECT ARRAY['Wonderful from the first call to the last dance.', 'Late, but kind.',
                 'The cake was "unforgettable"', '最高でした', 'Too loud for the garden.',
                 '⭐⭐⭐⭐⭐', 'Flowers arrived fresh; the arch was crooked.', ''] AS body,
           ARRAY['sunset', 'fireworks', 'carriage', 'choir'] AS thing
), lines AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id, base,
           hashint8extended((base + n) * 16 + k, $5 # 36) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 10 THEN 3 ELSE 1 END) AS k
    WHERE n <= 10 OR hashint8extended(n, $5 # 36) & 15 = 0
    OFFSET 0
)
INSERT INTO wedding.reviews (
    id, tenant_id, vendor_id, client_id, stars, body, published, created_at
)
SELECT
    id, tenant, base + 1 + (h >> 4 & 15), client, 1 + (h >> 8 & 1023) % 5,
    body[1 + (h & 7)] || CASE WHEN h >> 18 & 7 = 0 THEN ' ' || thing[1 + (h >> 21 & 3)] ELSE '' END,
    h >> 51 & 7 > 0, timestamptz '2025-06-01 00:00+00' - (h >> 20 & 67108863) * interval '1 second'
FROM lines, words;
