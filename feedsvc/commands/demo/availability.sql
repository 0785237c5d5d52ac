-- $1 tenants, $2 bases of ids, $3 first and $4 last number of each slice, $5 seed
WITH lines AS (
    SELECT tenant, base + n AS vendor, k, (base + n) * 16 + k AS id,
           hashint8extended((base + n) * 16 + k, $5 # 35) AS h
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS s (tenant, base, lo, hi),
         generate_series(lo, hi) AS n, generate_series(1, 2) AS k
    OFFSET 0
), dated AS (
    SELECT *, date '2025-01-01' + k::int * 120 + (h >> 20 & 63)::int AS first FROM lines
    OFFSET 0
)
INSERT INTO wedding.availability (id, tenant_id, vendor_id, period, state, note)
SELECT
    id, tenant, vendor, daterange(first, first + 1 + (h >> 30 & 31)::int),
    (ARRAY['free', 'held', 'booked', 'booked'])[1 + (h & 3)],
    CASE WHEN h >> 2 & 3 = 0 THEN 'afternoons only; "ask"' END
FROM dated;
