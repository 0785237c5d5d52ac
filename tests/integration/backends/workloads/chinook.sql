-- 17
SELECT * FROM "Chinook"."Album" WHERE "ArtistId" = $1 ORDER BY "Title";
-- 'For Those About To Rock, Vol. 17%'
SELECT * FROM "Chinook"."Album" WHERE "Title" LIKE $1 LIMIT 20;
-- 17
SELECT * FROM "Chinook"."Album" WHERE "AlbumId" = $1;
-- 17
SELECT t.* FROM "Chinook"."Track" t JOIN "Chinook"."Album" a USING ("AlbumId") WHERE a."ArtistId" = $1;
-- 17
SELECT * FROM "Chinook"."Track" WHERE "AlbumId" = $1;
-- 17
SELECT sum("Milliseconds") FROM "Chinook"."Track" WHERE "AlbumId" = $1;
-- '"40" & <b>17</b>'
SELECT * FROM "Chinook"."Track" WHERE "Name" = $1;
-- '"40" & <b>17</b>'
SELECT * FROM "Chinook"."Track" WHERE upper("Name") = upper($1);
--
SELECT * FROM "Chinook"."Track" WHERE "AlbumId" IS NULL ORDER BY "TrackId" LIMIT 20;
-- 'Composer 17'
SELECT "TrackId" FROM "Chinook"."Track" WHERE "Composer" = $1 ORDER BY "TrackId" LIMIT 20;
-- 6000, 7000
SELECT * FROM "Chinook"."Track" WHERE "Milliseconds" BETWEEN $1 AND $2;
--
SELECT "Name", "Bytes" FROM "Chinook"."Track" WHERE "Bytes" IS NOT NULL ORDER BY "Bytes" DESC LIMIT 10;
-- 0.99
SELECT count(*) FROM "Chinook"."Track" WHERE "UnitPrice" = $1;
-- 3
SELECT * FROM "Chinook"."Employee" WHERE "ReportsTo" = $1;
-- 17
SELECT * FROM "Chinook"."Invoice" WHERE "CustomerId" = $1 ORDER BY "InvoiceDate" DESC LIMIT 10;
-- 17
SELECT sum("Total") FROM "Chinook"."Invoice" WHERE "CustomerId" = $1;
-- '2022-01-01', '2022-02-01'
SELECT * FROM "Chinook"."Invoice" WHERE "InvoiceDate" >= $1 AND "InvoiceDate" < $2;
--
SELECT * FROM "Chinook"."Invoice" ORDER BY "InvoiceDate" DESC LIMIT 10;
-- '1017'
SELECT * FROM "Chinook"."Invoice" WHERE "BillingPostalCode" = $1 ORDER BY "InvoiceId" LIMIT 20;
-- 25
SELECT * FROM "Chinook"."Invoice" WHERE "Total" > $1 ORDER BY "Total" DESC LIMIT 10;
-- 17
SELECT * FROM "Chinook"."Invoice" WHERE "InvoiceId" = $1;
-- 17
SELECT * FROM "Chinook"."InvoiceLine" WHERE "InvoiceId" = $1 ORDER BY "InvoiceLineId";
-- 17
SELECT sum("Quantity") FROM "Chinook"."InvoiceLine" WHERE "TrackId" = $1;
-- 17
SELECT i."Total", l.* FROM "Chinook"."Invoice" i JOIN "Chinook"."InvoiceLine" l USING ("InvoiceId") WHERE i."CustomerId" = $1;
-- 17
SELECT t."Name", l."Quantity" FROM "Chinook"."InvoiceLine" l JOIN "Chinook"."Track" t USING ("TrackId") WHERE l."InvoiceId" = $1;
-- 17
SELECT "PlaylistId" FROM "Chinook"."PlaylistTrack" WHERE "TrackId" = $1;
-- 17
SELECT count(*) FROM "Chinook"."PlaylistTrack" WHERE "PlaylistId" = $1;
-- 3
SELECT t."Name" FROM "Chinook"."PlaylistTrack" p JOIN "Chinook"."Track" t USING ("TrackId") WHERE p."PlaylistId" = $1 ORDER BY t."Name" LIMIT 20;
-- 'AC/DC'
SELECT * FROM "Chinook"."Artist" WHERE "Name" = $1;
-- 17
SELECT ar."Name" FROM "Chinook"."Artist" ar JOIN "Chinook"."Album" al USING ("ArtistId") JOIN "Chinook"."Track" t USING ("AlbumId") WHERE t."TrackId" = $1;
