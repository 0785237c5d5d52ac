-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH words AS (
    SELECT ARRAY['Taste the cake', 'Book the band', 'Send invitations', 'Find a florist',
                 'Final fitting', 'Seating plan: "who sits where?"', 'Visit the registrar',
                 'Pay the caterer''s bill'] AS title,
           ARRAY['Ask about vegan options, nuts, gluten.', E'1. call\n2. confirm\n3. pay',
                 '+ photos; + video', '-5% if paid early', 'Plan B: الخيمة', '🎂🎂🎂', ''] AS details
), lines AS (
    SELECT tenant, base + n AS client, (base + n) * 16 + k AS id,
           hashint8extended((base + n) * 16 + k, $5 # 22) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 50 THEN 8 ELSE 1 END) AS k
    WHERE n <= 50 OR hashint8extended(n, $5 # 22) & 4095 < 700
    OFFSET 0
), dated AS (
    SELECT *, h >> 20 & 1 = 1 AS done,
           timestamptz '2025-06-01 00:00+00' - (h >> 24 & 16777215) * interval '1 second' AS updated
    FROM lines
    OFFSET 0
)
INSERT INTO wedding.tasks (
    id, tenant_id, client_id, title, details, due, priority, done, completed_at, updated_at
)
SELECT
    id, tenant, client, title[1 + (h & 7)],
    CASE WHEN h >> 3 & 3 > 0 THEN details[1 + (h >> 5 & 1023) % 7] END,
    CASE WHEN h >> 15 & 3 > 0 THEN date '2025-02-01' + (h >> 50 & 511)::int END,
    1 + (h >> 17 & 3), done, CASE WHEN done THEN updated END, updated
FROM dated, words;
