-- The shapes of chinook, the music shop: names in CamelCase that need quotes, keys of two columns,
-- a tree of employees, money as numeric, timestamps without a zone, long texts.

CREATE SCHEMA "Chinook";

CREATE TABLE "Chinook"."Artist" ("ArtistId" int PRIMARY KEY, "Name" varchar(120));
CREATE TABLE "Chinook"."Album" (
    "AlbumId" int PRIMARY KEY,
    "Title" varchar(160) NOT NULL,
    "ArtistId" int NOT NULL REFERENCES "Chinook"."Artist"
);
CREATE TABLE "Chinook"."Track" (
    "TrackId" int PRIMARY KEY,
    "Name" varchar(200) NOT NULL,
    "AlbumId" int REFERENCES "Chinook"."Album",
    "Composer" varchar(220),
    "Milliseconds" int NOT NULL,
    "Bytes" int,
    "UnitPrice" numeric(10, 2) NOT NULL
);
CREATE TABLE "Chinook"."Employee" (
    "EmployeeId" int PRIMARY KEY,
    "LastName" varchar(20) NOT NULL,
    "Title" varchar(30),
    "ReportsTo" int REFERENCES "Chinook"."Employee",
    "BirthDate" timestamp,
    "HireDate" timestamp,
    "Phone" varchar(24)
);
CREATE TABLE "Chinook"."Invoice" (
    "InvoiceId" int PRIMARY KEY,
    "CustomerId" int NOT NULL,
    "InvoiceDate" timestamp NOT NULL,
    "BillingAddress" varchar(70),
    "BillingPostalCode" varchar(10),
    "Total" numeric(10, 2) NOT NULL
);
CREATE TABLE "Chinook"."InvoiceLine" (
    "InvoiceLineId" int PRIMARY KEY,
    "InvoiceId" int NOT NULL REFERENCES "Chinook"."Invoice",
    "TrackId" int NOT NULL REFERENCES "Chinook"."Track",
    "UnitPrice" numeric(10, 2) NOT NULL,
    "Quantity" int NOT NULL
);
CREATE TABLE "Chinook"."PlaylistTrack" (
    "PlaylistId" int NOT NULL,
    "TrackId" int NOT NULL REFERENCES "Chinook"."Track",
    PRIMARY KEY ("PlaylistId", "TrackId")
);

INSERT INTO "Chinook"."Artist"
SELECT n, (ARRAY['AC/DC', 'Antônio Carlos Jobim', 'Guns N'' Roses', '+44', '(''Til) "There"', NULL])[1 + n % 6]
FROM generate_series(1, 275) AS n;
INSERT INTO "Chinook"."Album"
SELECT n, 'For Those About To Rock, Vol. ' || n || E'\t[Disc 1]', 1 + n % 275
FROM generate_series(1, 347) AS n;
INSERT INTO "Chinook"."Track"
SELECT n, '"40" & <b>' || n || '</b>', CASE WHEN n % 11 > 0 THEN 1 + n % 347 END,
    CASE WHEN n % 4 > 0 THEN 'Angus Young, Malcolm Young; Brian Johnson' END,
    n * 613, CASE WHEN n % 5 > 0 THEN n::bigint * 613177 % 2147483647 END, n % 200 / 100.0
FROM generate_series(1, 1200) AS n;
INSERT INTO "Chinook"."Employee"
SELECT n, 'Adams', CASE WHEN n > 1 THEN 'Sales "Agent"' END, nullif(n / 3, 0),
    timestamp '1962-02-18' - n * interval '999 days', timestamp '2002-08-14 23:59:59.999999',
    '+1 (780) 428-9482'
FROM generate_series(1, 8) AS n;
INSERT INTO "Chinook"."Invoice"
SELECT n, 1 + n % 59, timestamp '2021-01-01' + n * interval '4 days 7 hours', 'Theodor-Heuss-Straße 34',
    (ARRAY['70174', '0171', '', 'T6G 2C7', NULL])[1 + n % 5], n % 2600 / 100.0
FROM generate_series(1, 412) AS n;
INSERT INTO "Chinook"."InvoiceLine"
SELECT n, 1 + n % 412, 1 + n % 1200, 0.99, 1 FROM generate_series(1, 1000) AS n;
INSERT INTO "Chinook"."PlaylistTrack"
SELECT 1 + n % 18, 1 + n / 18 FROM generate_series(0, 1499) AS n;
