-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH lines AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id, base,
           hashint8extended((base + n) * 16 + k, $5 # 40) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 10 THEN 3 ELSE 1 END) AS k
    WHERE n <= 10 OR hashint8extended(n, $5 # 40) & 3 = 0
    OFFSET 0
), dated AS (
    SELECT *, timestamptz '2025-06-01 00:00+00' - (h >> 20 & 67108863) * interval '1 second' AS at
    FROM lines
    OFFSET 0
)
INSERT INTO wedding.measurements (id, tenant_id, at, page, milliseconds, failed)
SELECT
    id, tenant, at, '/p/' || (h & 15),
    CASE WHEN h >> 4 & 31 = 0 THEN 1001 + (h >> 9 & 4095) ELSE 5 + (h >> 9 & 511) END,
    h >> 50 & 63 = 0
FROM dated
ORDER BY at;  -- as they come in: a BRIN index needs them so
