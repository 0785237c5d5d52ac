-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH lines AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id, base,
           hashint8extended((base + n) * 16 + k, $5 # 34) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 10 THEN 3 ELSE 1 END) AS k
    WHERE n <= 10 OR hashint8extended(n, $5 # 34) & 15 = 0
    OFFSET 0
), dated AS (
    SELECT *, timestamptz '2025-06-01 00:00+00' - (h >> 20 & 67108863) * interval '1 second' AS loaded
    FROM lines
    OFFSET 0
)
INSERT INTO wedding.documents (
    id, tenant_id, client_id, title, kind, tags, metadata, size, uploaded_at, deleted_at
)
SELECT
    id, tenant, client,
    (ARRAY['Contract', 'Floor plan; ground floor', 'Menu "spring"', 'Guest list', 'חשבונית', '見積書',
           'Invoice', 'Mood board'])[1 + (h & 7)] || ' ' || k,
    (ARRAY['contract', 'plan', 'menu', 'list', 'invoice'])[1 + (h >> 3 & 1023) % 5],
    ARRAY[(ARRAY['signed', 'draft', 'final', 'old'])[1 + (h >> 13 & 3)],
          'v' || 1 + (h >> 15 & 31)],
    jsonb_build_object('pages', 1 + (h >> 40 & 63), 'scanned', h >> 46 & 31 = 0,
                       'camera', jsonb_build_object('model', 'M' || (h >> 30 & 127))),
    1000 + (h >> 8 & 16777215), loaded,
    CASE WHEN h >> 51 & 7 = 0 THEN loaded + interval '3 days' END
FROM dated;
