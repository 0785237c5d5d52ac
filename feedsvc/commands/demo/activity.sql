-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH lines AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id, base,
           hashint8extended((base + n) * 16 + k, $5 # 39) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 10 THEN 3 ELSE 1 END) AS k
    WHERE n <= 10 OR hashint8extended(n, $5 # 39) & 7 = 0
    OFFSET 0
), dated AS (
    SELECT *, timestamptz '2025-06-01 00:00+00' - (h >> 20 & 67108863) * interval '1 second' AS at
    FROM lines
    OFFSET 0
)
INSERT INTO wedding.activity (id, tenant_id, client_id, actor, action, details, at)
SELECT
    id, tenant, CASE WHEN h & 7 > 0 OR n <= 10 THEN client END,
    (ARRAY['office', 'couple', 'vendor', 'import'])[1 + (h >> 3 & 3)],
    (ARRAY['viewed', 'changed', 'signed', 'paid', 'exported'])[1 + (h >> 5 & 1023) % 5],
    jsonb_build_object('page', '/p/' || (h >> 15 & 31), 'ip', '192.0.2.' || (h >> 47 & 255)), at
FROM dated
ORDER BY at;  -- as it happens: a BRIN index needs it so
