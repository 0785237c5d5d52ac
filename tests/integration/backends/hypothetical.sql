-- Tables whose indexes HypoPG can try, and one that needs what it can't
CREATE SCHEMA extensions;
CREATE EXTENSION hypopg SCHEMA extensions;
CREATE ROLE visitor LOGIN PASSWORD 'a visitor''s';
CREATE SCHEMA shop;
GRANT USAGE ON SCHEMA shop, extensions TO visitor;
CREATE TABLE shop.orders (
    id bigint PRIMARY KEY, tenant text NOT NULL, placed_at timestamptz NOT NULL, tags text[] NOT NULL
);
INSERT INTO shop.orders
SELECT n, 'tenant ' || n % 40, '2026-01-01'::timestamptz + n * interval '1 minute',
       ARRAY['tag ' || n % 900, 'tag ' || n % 700]
FROM generate_series(1, 20000) AS n;
CREATE TABLE shop.lines (id bigint PRIMARY KEY, order_id bigint NOT NULL, amount int NOT NULL);
INSERT INTO shop.lines SELECT n, n % 20000, n % 100 FROM generate_series(1, 60000) AS n;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO visitor;
-- Of the same names, for whoever gives no type
CREATE FUNCTION extensions.hypopg_drop_index(text) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN RAISE 'a stranger''s function'; END $$;
CREATE FUNCTION extensions.hypopg_relation_size(text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN RAISE 'a stranger''s function'; END $$;
