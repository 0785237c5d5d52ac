-- The sample's tables with the rows of some years.
INSERT INTO "Chinook"."Artist" SELECT n, 'Artist ' || n FROM generate_series(276, 3000) AS n;
INSERT INTO "Chinook"."Album"
SELECT n, 'For Those About To Rock, Vol. ' || n, 1 + n * 7 % 3000
FROM generate_series(348, 5000) AS n;
INSERT INTO "Chinook"."Track"
SELECT n, '"40" & <b>' || n || '</b>', CASE WHEN n % 91 > 0 THEN 1 + n * 13 % 5000 END,
    CASE WHEN n % 4 > 0 THEN 'Composer ' || n % 700 END, n * 613 % 900000,
    CASE WHEN n % 5 > 0 THEN n::bigint * 613177 % 2147483647 END, n % 200 / 100.0
FROM generate_series(1201, 20000) AS n;
INSERT INTO "Chinook"."Invoice"
SELECT n, 1 + n * 7 % 900, timestamp '2015-01-01' + n * interval '11 hours', 'Theodor-Heuss-Straße 34',
    (n * 37 % 4000)::text, n % 2600 / 100.0
FROM generate_series(413, 8000) AS n;
INSERT INTO "Chinook"."InvoiceLine"
SELECT n, 1 + n * 11 % 8000, 1 + n * 17 % 20000, 0.99, 1 FROM generate_series(1001, 20000) AS n;
INSERT INTO "Chinook"."PlaylistTrack"
SELECT 20 + n % 180, 1 + n / 2 % 20000 FROM generate_series(0, 19999) AS n ON CONFLICT DO NOTHING;
