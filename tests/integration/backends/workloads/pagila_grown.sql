-- The sample's tables with the rows of some years.
INSERT INTO pagila.film (title, description, release_year, language_id, original_language_id,
    rental_duration, rental_rate, length, replacement_cost, rating, special_features, fulltext)
SELECT f.title || '.' || n, f.description, f.release_year, f.language_id, f.original_language_id,
    f.rental_duration, f.rental_rate, f.length, f.replacement_cost, f.rating, f.special_features,
    to_tsvector('english', 'epic drama ' || f.film_id * n)
FROM pagila.film f, generate_series(1, 5) AS n;
INSERT INTO pagila.film_actor (actor_id, film_id)
SELECT 1 + n % 200, 501 + n / 3 FROM generate_series(0, 8999) AS n;
INSERT INTO pagila.customer (store_id, first_name, last_name, email, activebool, create_date,
    last_update, active)
SELECT c.store_id, c.first_name, c.last_name || '.' || n, n || c.email, c.activebool,
    c.create_date + n, c.last_update, c.active
FROM pagila.customer c, generate_series(1, 6) AS n;
INSERT INTO pagila.rental (rental_date, rental_period, customer_id, staff_id)
SELECT r.rental_date + n * interval '40 days', tstzrange(r.rental_date + n * interval '40 days',
    r.rental_date + n * interval '41 days'), 1 + (r.rental_id + n * 577) % 4000, r.staff_id
FROM pagila.rental r, generate_series(1, 12) AS n;
