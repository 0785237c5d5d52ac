-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH words AS (
    SELECT ARRAY['Hair and make-up', 'Ceremony', 'Confetti', 'Speeches (max. 5 min!)', 'First dance',
                 'Cutting of the cake', 'Baraat', 'חופה', '披露宴', 'Last bus'] AS title,
           ARRAY['Bridal suite', 'The "Old" Mill', 'St Mary''s, north door', 'garden; if dry',
                 'القاعة الكبرى', 'Zelt'] AS place,
           ARRAY[E'Rings: best man\nReadings: aunt Zoë', '@photographer: be here 20 min early',
                 '- no flash -', 'Quiet, please 🤫', ''] AS notes
), moments AS (
    SELECT tenant, base + n AS client, (base + n) * 16 + k AS id, k,
           hashint8extended((base + n) * 16 + k, $5 # 23) AS h,
           hashint8extended(base + n, $5 # 23) & 1023 AS day
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 50 THEN 8 ELSE 1 END) AS k
    WHERE n <= 50 OR hashint8extended(n, $5 # 23) & 4095 < 700
    OFFSET 0
), timed AS (
    SELECT *, timestamptz '2024-05-04 08:00+00' + day * interval '1 day' + k * interval '50 minutes'
              + (h >> 40 & 3) * interval '5 minutes' AS starts
    FROM moments
    OFFSET 0
)
INSERT INTO wedding.timeline (
    id, tenant_id, client_id, starts_at, ends_at, title, place, notes
)
SELECT
    id, tenant, client, starts,
    CASE WHEN h >> 20 & 3 > 0 THEN starts + (5 + (h >> 22 & 63)) * interval '1 minute' END,
    title[1 + (h & 1023) % 10],
    CASE WHEN h >> 10 & 7 > 0 THEN place[1 + (h >> 13 & 127) % 6] END,
    CASE WHEN h >> 25 & 1 = 1 THEN notes[1 + (h >> 26 & 1023) % 5] END
FROM timed, words;
