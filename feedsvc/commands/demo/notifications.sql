-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH words AS (
    SELECT ARRAY['reminder', 'payment', 'message', 'review', 'system'] AS kind,
           ARRAY['Your tasting is tomorrow at 10:00.', 'Payment received, thank you!',
                 'New message: "can we add two guests?"', E'Two lines:\nsecond', '⭐⭐⭐⭐⭐',
                 'تم تأكيد الحجز', '=1+1 is a strange subject', 'O''Neill wrote to you'] AS body,
           ARRAY[  -- json keeps white space, repeated keys and every digit as they came
               '{"a":1,"a":2}', E'{\n  "amount": 12.50,\r\n  "currency": "EUR"\n}',
               E'[1,\n 2,\n\t3]', '{"text":"a\nb \u2028 \"q\""}', '1.10', '"plain"', 'null',
               '{"n":123456789012345678901234567890.000}', '{ "deep" : [ { "er" : [ ] } ] }'
           ] AS payload
), sent AS (
    SELECT tenant, base + n AS client, n, k, (base + n) * 16 + k AS id,
           hashint8extended((base + n) * 16 + k, $5 # 24) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         generate_series(1, CASE WHEN n <= 50 THEN 8 ELSE 1 END) AS k
    WHERE n <= 50 OR hashint8extended(n, $5 # 24) & 4095 < 700
    OFFSET 0
), dated AS (
    SELECT *, timestamptz '2025-06-01 00:00+00' - (h >> 24 & 8388607) * interval '1 second'
              - (h & 1048575) * interval '1 us' AS moment
    FROM sent
    OFFSET 0
)
INSERT INTO wedding.notifications (
    id, tenant_id, client_id, kind, body, payload, sent_at, read_at
)
SELECT
    overlay(md5('notification:' || id || ':' || $5) PLACING '4' FROM 13 FOR 1)::uuid, tenant,
    CASE WHEN k % 8 <> 4 AND (k <> 1 OR n % 10 <> 0) THEN client END,  -- else the supplier's own
    kind[1 + (h & 1023) % 5], body[1 + (h >> 10 & 7)],
    CASE WHEN h >> 13 & 3 > 0 THEN payload[1 + (h >> 15 & 511) % 9]::json END,
    moment, CASE WHEN h >> 50 & 1 = 1 THEN moment + (h >> 51 & 4095) * interval '1 minute' END
FROM dated, words;
