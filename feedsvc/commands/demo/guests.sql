-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH lines AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id, base,
           hashint8extended((base + n) * 16 + k, $5 # 38) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 10 THEN 3 ELSE 1 END) AS k
    WHERE n <= 10 OR hashint8extended(n, $5 # 38) & 15 = 0
    OFFSET 0
), dated AS (
    SELECT *, timestamptz '2025-06-01 00:00+00' - (h >> 20 & 67108863) * interval '1 second' AS changed,
           h & 15 AS state
    FROM lines
    OFFSET 0
)
INSERT INTO wedding.guests (
    id, tenant_id, client_id, name, email, rsvp, diet, seat, answered_at, updated_at
)
SELECT
    id, tenant, client,
    (ARRAY['Aunt Zoë', 'Dr. "Bob" Núñez', '李 雷', 'O''Malley, Pat', 'أم محمد', 'Plus one', 'Łucja',
           '=1+1'])[1 + (h >> 4 & 7)] || ' ' || (h >> 40 & 255),
    CASE WHEN h >> 7 & 3 > 0 THEN 'guest' || id || '@example.org' END,
    CASE WHEN state < 9 THEN 'yes' WHEN state < 13 THEN 'no' ELSE 'pending' END,
    CASE h >> 9 & 127 WHEN 0 THEN ARRAY['vegan'] WHEN 1 THEN ARRAY['nuts', 'gluten']
                     WHEN 2 THEN ARRAY['kosher'] ELSE '{}' END,
    CASE WHEN state < 9 THEN int4range((h >> 13 & 63)::int, (h >> 13 & 63)::int + 2) END,
    CASE WHEN state < 13 THEN changed END, changed
FROM dated;
