-- Tables in which each fault of a plan can be planted, and innocent ones beside them
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop TO feedsvc_tests;
CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, tenant text NOT NULL, status text NOT NULL, flag boolean NOT NULL,
    amount numeric NOT NULL, place int NOT NULL, note text NOT NULL
) WITH (autovacuum_enabled = false);
INSERT INTO shop.orders
SELECT n, 'tenant ' || n % 4, 'status ' || n % 200, n % 2 = 0, n % 5000, n % 10000,
       repeat('note of a row ', 4) || n
FROM generate_series(1, 40000) AS n;
CREATE INDEX orders_tenant ON shop.orders (tenant);
CREATE INDEX orders_place ON shop.orders (place, status);
CREATE TABLE shop.vacuumed (LIKE shop.orders INCLUDING INDEXES) WITH (autovacuum_enabled = false);
INSERT INTO shop.vacuumed SELECT * FROM shop.orders;
CREATE TABLE shop.secured (LIKE shop.orders INCLUDING INDEXES) WITH (autovacuum_enabled = false);
INSERT INTO shop.secured SELECT * FROM shop.orders;
CREATE INDEX secured_amount ON shop.secured (amount);
CREATE INDEX vacuumed_amount ON shop.vacuumed (amount);
ALTER TABLE shop.secured ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON shop.secured TO feedsvc_tests
USING (tenant = (SELECT nullif(current_setting('feedsvc.tenant', true), '')));
CREATE TABLE shop.few (name text PRIMARY KEY, lo int NOT NULL, hi int NOT NULL);
INSERT INTO shop.few SELECT 'few ' || n, n * 100, n * 100 + 99 FROM generate_series(0, 99) AS n;
CREATE TABLE shop.fresh (LIKE shop.orders) WITH (autovacuum_enabled = false);
INSERT INTO shop.fresh SELECT * FROM shop.orders LIMIT 5000;
CREATE TABLE shop.blind (LIKE shop.orders) WITH (autovacuum_enabled = false);
ALTER TABLE shop.blind ALTER COLUMN status SET STATISTICS 0;
INSERT INTO shop.blind SELECT * FROM shop.orders LIMIT 5000;
CREATE TABLE shop.grown (LIKE shop.orders) WITH (autovacuum_enabled = false);
INSERT INTO shop.grown SELECT * FROM shop.orders LIMIT 1000;
CREATE FUNCTION shop.doubled(int) RETURNS int LANGUAGE sql IMMUTABLE RETURN $1 * 2;
CREATE FUNCTION shop.guarded(int) RETURNS int LANGUAGE sql STABLE SECURITY DEFINER RETURN $1 * 2;
CREATE FUNCTION shop.in_steps(int) RETURNS int LANGUAGE plpgsql STABLE
AS 'BEGIN RETURN $1 * 2; END';
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO feedsvc_tests;
