-- The shapes of pagila, the DVD rental shop: an enum, a domain, an array, tsvector, bytea, a table
-- that is partitioned by month, a composite key, views, timestamps on everything.

CREATE SCHEMA pagila;

CREATE TYPE pagila.mpaa_rating AS ENUM ('G', 'PG', 'PG-13', 'R', 'NC-17');
CREATE DOMAIN pagila.year AS integer CHECK (VALUE BETWEEN 1901 AND 2155);
CREATE DOMAIN pagila.bîgint AS bigint;

CREATE TABLE pagila.actor (
    actor_id serial PRIMARY KEY,
    first_name text NOT NULL,
    last_name text NOT NULL,
    last_update timestamptz NOT NULL DEFAULT '2022-02-15 09:34:33+00'
);
CREATE TABLE pagila.language (
    language_id serial PRIMARY KEY,
    name character(20) NOT NULL,
    last_update timestamptz NOT NULL DEFAULT '2022-02-15 10:02:19+00'
);
CREATE TABLE pagila.film (
    film_id serial PRIMARY KEY,
    title text NOT NULL,
    description text,
    release_year pagila.year,
    language_id integer NOT NULL REFERENCES pagila.language,
    original_language_id integer REFERENCES pagila.language,
    rental_duration smallint NOT NULL DEFAULT 3,
    rental_rate numeric(4, 2) NOT NULL DEFAULT 4.99,
    length smallint,
    replacement_cost numeric(5, 2) NOT NULL DEFAULT 19.99,
    rating pagila.mpaa_rating DEFAULT 'G',
    last_update timestamptz NOT NULL DEFAULT '2022-02-15 10:03:42.000001+00',
    special_features text[],
    fulltext tsvector NOT NULL
);
CREATE TABLE pagila.film_actor (
    actor_id integer NOT NULL REFERENCES pagila.actor,
    film_id integer NOT NULL REFERENCES pagila.film,
    last_update timestamptz NOT NULL DEFAULT '2022-02-15 10:05:03+00',
    PRIMARY KEY (actor_id, film_id)
);
CREATE TABLE pagila.staff (
    staff_id pagila.bîgint PRIMARY KEY,
    first_name text NOT NULL,
    email text,
    active boolean NOT NULL DEFAULT true,
    picture bytea
);
CREATE TABLE pagila.customer (
    customer_id serial PRIMARY KEY,
    store_id smallint NOT NULL,
    first_name text NOT NULL,
    last_name text NOT NULL,
    email text,
    activebool boolean NOT NULL DEFAULT true,
    create_date date NOT NULL DEFAULT '2022-02-14',
    last_update timestamptz,
    active integer
);
CREATE TABLE pagila.rental (
    rental_id serial PRIMARY KEY,
    rental_date timestamptz NOT NULL,
    rental_period tstzrange NOT NULL,
    customer_id integer NOT NULL REFERENCES pagila.customer,
    staff_id pagila.bîgint NOT NULL REFERENCES pagila.staff
);
CREATE TABLE pagila.payment (
    payment_id bigint NOT NULL,
    customer_id integer NOT NULL,
    rental_id integer NOT NULL,
    amount numeric(5, 2) NOT NULL,
    payment_date timestamptz NOT NULL,
    PRIMARY KEY (payment_date, payment_id)
) PARTITION BY RANGE (payment_date);
CREATE TABLE pagila.payment_p2022_01 PARTITION OF pagila.payment
    FOR VALUES FROM ('2022-01-01 00:00+00') TO ('2022-02-01 00:00+00');
CREATE TABLE pagila.payment_p2022_02 PARTITION OF pagila.payment
    FOR VALUES FROM ('2022-02-01 00:00+00') TO ('2022-03-01 00:00+00');
CREATE TABLE pagila.payment_rest PARTITION OF pagila.payment DEFAULT;

INSERT INTO pagila.actor (first_name, last_name)
SELECT 'PENELOPE ' || n, CASE n % 4 WHEN 0 THEN 'O''HARA' WHEN 1 THEN 'GUINESS, JR' ELSE 'WAHLBERG' END
FROM generate_series(1, 200) AS n;
INSERT INTO pagila.language (name) VALUES ('English'), ('Français'), ('日本語'), (''), ('=Deutsch'), ('"q"');
INSERT INTO pagila.film (title, description, release_year, language_id, original_language_id,
    rental_duration, rental_rate, length, replacement_cost, rating, special_features, fulltext)
SELECT 'ACADEMY DINOSAUR ' || n,
    CASE WHEN n % 7 > 0 THEN E'A Epic Drama of a Feminist,\nAnd a "Mad" Scientist ' || n END,
    CASE WHEN n % 5 > 0 THEN 1901 + n % 200 END, 1 + n % 6, CASE WHEN n % 3 = 0 THEN 1 + n % 5 END,
    n % 8, n % 100 / 100.0, CASE WHEN n % 9 > 0 THEN n % 200 END, n % 1000 / 10.0,
    (enum_range(NULL::pagila.mpaa_rating))[1 + n % 6],
    CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN '{}'::text[] WHEN 2 THEN ARRAY['Trailers', NULL]
        ELSE ARRAY['Deleted Scenes', 'Behind "the" Scenes, too'] END,
    to_tsvector('english', 'academy dinosaur epic drama ' || n)
FROM generate_series(1, 600) AS n;
INSERT INTO pagila.film_actor (actor_id, film_id)
SELECT 1 + n % 200, 1 + n / 3 FROM generate_series(0, 1499) AS n;
INSERT INTO pagila.staff VALUES
    (1, 'Mike', 'Mike.Hillyer@sakilastaff.com', true, decode(repeat('89504e470d0a1a0a00', 500), 'hex')),
    (9223372036854775807, 'Jon', NULL, false, NULL), (-2, '-Jo', '', true, '');
INSERT INTO pagila.customer (store_id, first_name, last_name, email, activebool, create_date,
    last_update, active)
SELECT 1 + n % 2, 'MARY', 'SMITH ' || n, 'MARY.' || n || '@sakilacustomer.org', n % 10 > 0,
    '2022-02-14'::date + n, CASE WHEN n % 6 > 0 THEN timestamptz '2022-02-15 09:57:20+00' END, n % 2
FROM generate_series(1, 599) AS n;
INSERT INTO pagila.rental (rental_date, rental_period, customer_id, staff_id)
SELECT at, tstzrange(at, CASE WHEN n % 8 > 0 THEN at + n % 9 * interval '1 day' END), 1 + n % 599,
    (ARRAY[1, -2, 9223372036854775807])[1 + n % 3]
FROM generate_series(1, 1500) AS n, LATERAL (SELECT timestamptz '2022-05-24 22:53:30+00'
    + n * interval '37 minutes') AS t (at);
INSERT INTO pagila.payment
SELECT n, 1 + n % 599, n, n % 1200 / 100.0, timestamptz '2022-01-20 03:04:05.678+00'
    + n * interval '23 minutes'
FROM generate_series(1, 1500) AS n;

CREATE VIEW pagila.film_list AS
SELECT f.film_id AS fid, f.title, l.name AS language, f.rental_rate AS price, f.length,
    f.rating, array_agg(a.first_name || ' ' || a.last_name ORDER BY a.actor_id) AS actors
FROM pagila.film f JOIN pagila.language l USING (language_id)
LEFT JOIN pagila.film_actor USING (film_id) LEFT JOIN pagila.actor a USING (actor_id)
GROUP BY f.film_id, l.name;
CREATE VIEW pagila.sales_by_day AS
SELECT payment_date::date AS day, sum(amount) AS total, avg(amount) AS mean, count(*) AS payments
FROM pagila.payment GROUP BY 1;
