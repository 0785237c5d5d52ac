-- $1 tenants, $2 bases of ids, $3 first and $4 last day of each slice, $5 seed
WITH figures AS (
    SELECT tenant, date '2025-06-01' - n::int AS day, metric, place,
           hashint8extended(base + n * 8 + place, $5 # 26) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n,
         unnest(ARRAY['bookings', 'conversion', 'enquiries', 'net_margin', 'revenue', 'visits'])
             WITH ORDINALITY AS m (metric, place)
    OFFSET 0
)
INSERT INTO wedding.analytics (tenant_id, day, metric, value, samples, dimensions)
SELECT
    tenant, day, metric,
    CASE place
        WHEN 2 THEN (h & 1048575) / 1048576.0::float8   -- a ratio, every digit of a double
        WHEN 4 THEN ((h & 65535) - 20000) / 3.0::float8  -- losses occur
        WHEN 5 THEN (h & 4194303) / 100.0::float8
        ELSE h & 511 END,
    CASE WHEN h >> 30 & 63 = 0 THEN (h >> 1) & 9007199254740993 ELSE h >> 31 & 65535 END,
    CASE WHEN h >> 50 & 3 > 0 THEN jsonb_build_object(
        'channel', (ARRAY['web', 'fair', 'referral', 'Mund-zu-Mund'])[1 + (h >> 52 & 3)],
        'weekend', extract(isodow FROM day) > 5) END
FROM figures;
