-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH words AS (
    SELECT ARRAY['Could we move the tasting to Friday?', 'The florist asks for a deposit.',
                 'Grandmother needs a seat near the door.', 'Attached: the signed contract, page 3.',
                 'Is the "quiet" room free? =NOW()', 'שלום, מתי הפגישה?', 'ありがとうございます。',
                 E'two lines\nof text', 'Vegan menu confirmed for 12 guests.',
                 'The band can start at nine.'] AS body,
           ARRAY['marquee', 'lanterns', 'peonies', 'parking', 'confetti', 'projector', 'piano',
                 'heaters'] AS thing
), lines AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id, base,
           hashint8extended((base + n) * 16 + k, $5 # 33) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 10 THEN 3 ELSE 1 END) AS k
    WHERE n <= 10 OR hashint8extended(n, $5 # 33) & 15 = 0
    OFFSET 0
), dated AS (
    SELECT *, timestamptz '2025-06-01 00:00+00' - (h >> 20 & 67108863) * interval '1 second' AS sent
    FROM lines
    OFFSET 0
)
INSERT INTO wedding.messages (
    id, tenant_id, client_id, sender, body, attachments, sent_at, read_at
)
SELECT
    id, tenant, client, (ARRAY['couple', 'office', 'vendor', 'couple'])[1 + (h & 3)],
    body[1 + (h >> 2 & 1023) % 10] || CASE WHEN h >> 12 & 7 = 0 THEN ' ' || thing[1 + (h >> 15 & 7)]
                                           ELSE '' END,
    CASE WHEN h >> 46 & 3 = 0 THEN ARRAY['contract.pdf', 'plan ' || (h >> 48 & 7) || '.png']
         ELSE '{}' END,
    sent, CASE WHEN h >> 52 & 7 > 0 THEN sent + (h >> 55 & 127) * interval '1 minute' END
FROM dated, words
ORDER BY sent;  -- as they come in: a BRIN index needs them so
