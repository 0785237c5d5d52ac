-- $1 clients of the first tenant, $2 seed
-- Makes the tenants and answers with the plan of what each is to be filled with.
WITH small AS (
    SELECT slug, place, hashint8extended(place, $2) & 1023 AS h,
           row_number() OVER (ORDER BY hashint8extended(place, $2)) - 1 AS rank
    FROM unnest(ARRAY[
        'silver-oak', 'casa-jazmin', 'blue-heron', 'nordlys', 'two-doves', 'la-vie-en-rose',
        'golden-hour', 'mehndi-and-co', 'old-mill', 'sakura-days', 'villa-fiore', 'ever-after',
        'marigold', 'hochzeitsglueck', 'white-tide', 'the-orchard', 'luna-de-miel', 'first-dance',
        'perla-negra', 'saffron-house', 'wild-thistle', 'dar-el-ward', 'north-star', 'petit-bal',
        'juniper-lane', 'amore-eterno', 'kente-and-lace', 'harbour-vows', 'fern-and-fable',
        'zlota-godzina', 'honey-and-hops', 'pine-ridge', 'velvet-evening', 'shaadi-stories',
        'coral-cove', 'the-glasshouse', 'birch-and-bloom', 'moonlit-vale', 'tulip-works', 'zephyr'
    ]) WITH ORDINALITY AS names (slug, place)
), plan AS MATERIALIZED (
    SELECT * FROM (VALUES
        (1::bigint, 'rosewood', 'Rosewood Weddings', greatest($1, 1), 200, 400),
        (2, 'atelier-blanc', 'Atelier Blanc', greatest($1 / 3, 1), 120, 400),
        (3, 'lotus-and-vine', 'Lotus & Vine', $1 / 10, 80, 400)
    ) AS large (number, tenant, name, clients, vendors, days)
    UNION ALL
    -- 3 to 120 clients, skewed as businesses are: most small ones are very small; the seed says
    -- which are which. None outgrows the first tenant.
    SELECT 3 + place, slug, initcap(replace(slug, '-', ' ')),
           least(3 + (117 * power(rank / 39.0, 3))::bigint, greatest($1, 1)),
           20 + (h / 12)::int, 14 + (h / 16)::int
    FROM small
), made AS (
    INSERT INTO wedding.tenants (id, name, city, country, currency, time_zone, created_at)
    SELECT tenant, name, home[1], home[2], home[3], home[4],
           timestamptz '2019-03-01 09:00+00' + number * interval '31 days 7 hours'
    FROM plan, LATERAL (SELECT (ARRAY[
        ['Bath', 'GB', 'GBP', 'Europe/London'], ['Lyon', 'FR', 'EUR', 'Europe/Paris'],
        ['Kochi', 'IN', 'INR', 'Asia/Kolkata'], ['Galway', 'IE', 'EUR', 'Europe/Dublin'],
        ['Oaxaca', 'MX', 'MXN', 'America/Mexico_City'], ['東京', 'JP', 'JPY', 'Asia/Tokyo'],
        ['Kraków', 'PL', 'PLN', 'Europe/Warsaw'], ['القاهرة', 'EG', 'EGP', 'Africa/Cairo'],
        ['Savannah', 'US', 'USD', 'America/New_York'], ['Málaga', 'ES', 'EUR', 'Europe/Madrid']
    ])) AS homes (list),
    LATERAL (SELECT ARRAY(
        SELECT list[1 + (number - 1) % 10][part] FROM generate_series(1, 4) AS part
    )) AS chosen (home)
)
SELECT number, tenant, clients, vendors, days FROM plan ORDER BY number;
