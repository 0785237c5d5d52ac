-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH words AS (
    SELECT ARRAY['florist', 'photographer', 'caterer', 'band', 'DJ', 'baker', 'officiant',
                 'car hire', 'stationer', 'hair & make-up'] AS trade,
           ARRAY['Bloom & Wild', 'O''Leary''s', 'The "Sweet" Spot', 'Lumière', 'Gülşen', 'Żaba; Sp.',
                 '山田', 'ورود', 'Sugar, Spice', '=Equal Partners', '@TheAltar', 'Ünal'] AS name,
           ARRAY['Studio', 'Brothers', 'GmbH', '& Co.', 'Collective', 'Ltd', '工房', ''] AS suffix
), firms AS (
    SELECT tenant, base + n AS id, n, hashint8extended(base + n, $5 # 25) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n
    OFFSET 0
)
INSERT INTO wedding.vendors (
    id, tenant_id, name, trade, email, phone, rating, website, active, created_at
)
SELECT
    id, tenant, name[1 + (h & 1023) % 12] || ' ' || suffix[1 + (h >> 10 & 7)],
    trade[1 + (h >> 13 & 1023) % 10],
    CASE WHEN h >> 23 & 7 > 0 THEN 'office' || n || '@vendor.example' END,
    CASE WHEN h >> 26 & 7 > 0 THEN '+44 117 496 0' || 100 + (h >> 29 & 511) END,
    CASE WHEN h >> 38 & 3 > 0 THEN (10 + (h >> 40 & 1023) % 41) / 10.0 END,
    CASE WHEN h >> 50 & 3 > 0 THEN 'https://vendor.example/?n=' || n || '&ref="demo"' END,
    h >> 52 & 7 > 0,
    timestamptz '2025-06-01 00:00+00' - (h >> 16 & 134217727) * interval '1 second'
FROM firms, words;
