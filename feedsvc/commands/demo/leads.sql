-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH lines AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id, base,
           hashint8extended((base + n) * 16 + k, $5 # 37) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 10 THEN 3 ELSE 1 END) AS k
    WHERE n <= 10 OR hashint8extended(n, $5 # 37) & 15 = 0
    OFFSET 0
), dated AS (
    SELECT *, timestamptz '2025-06-01 00:00+00' - (h >> 20 & 67108863) * interval '1 second' AS made,
           h & 15 AS state
    FROM lines
    OFFSET 0
)
INSERT INTO wedding.leads (
    id, tenant_id, client_id, email, name, source, status, score, interests, metadata, created_at,
    next_call_at
)
SELECT
    id, tenant, CASE WHEN state < 4 THEN client END, 'Lead' || id || '@example.net',
    (ARRAY['Zoë & Sam', 'O''Brien / Ní Dhomhnaill', '伟 and 敏', 'Priya + Tom'])[1 + (h >> 4 & 3)],
    (ARRAY['web', 'fair', 'referral', 'advert'])[1 + (h >> 6 & 3)],
    CASE WHEN state < 4 THEN 'won' WHEN state < 12 THEN 'lost' WHEN state < 14 THEN 'contacted'
         ELSE 'new' END,
    (h >> 8 & 127) % 101,
    ARRAY[(ARRAY['barn', 'beach', 'castle', 'garden'])[1 + (h >> 15 & 3)],
          (ARRAY['band', 'vegan', 'fireworks', 'horses', 'drone', 'choir', 'film', 'henna'])
          [1 + (h >> 17 & 7)], 'theme ' || (h >> 20 & 127)],
    jsonb_build_object('campaign', 'c' || (h >> 30 & 63), 'budget', (h >> 36 & 15) * 5000),
    made, CASE WHEN state >= 12 THEN made + (h >> 40 & 127) * interval '1 hour' END
FROM dated;
