-- ''
SELECT * FROM pagila.film WHERE title = $1;
-- 'ACADEMY DINOSAUR 12%'
SELECT film_id, title FROM pagila.film WHERE title LIKE $1 LIMIT 20;
-- 'drama & 77'
SELECT * FROM pagila.film WHERE fulltext @@ to_tsquery($1) LIMIT 20;
-- ARRAY['Trailers']
SELECT * FROM pagila.film WHERE special_features @> $1::text[] LIMIT 50;
-- 'R'
SELECT * FROM pagila.film WHERE rating = $1 ORDER BY title LIMIT 20;
-- 2
SELECT count(*) FROM pagila.film WHERE language_id = $1;
-- 3
SELECT * FROM pagila.film WHERE original_language_id = $1 ORDER BY film_id LIMIT 10;
-- 100, 101
SELECT title, length FROM pagila.film WHERE length BETWEEN $1 AND $2 ORDER BY length LIMIT 30;
-- 1950
SELECT title FROM pagila.film WHERE release_year = $1;
-- 17
SELECT * FROM pagila.film WHERE film_id = $1;
-- 17
SELECT a.* FROM pagila.actor a JOIN pagila.film_actor fa USING (actor_id) WHERE fa.film_id = $1;
-- 17
SELECT f.title FROM pagila.film f JOIN pagila.film_actor fa USING (film_id) WHERE fa.actor_id = $1;
-- 'WAHLBERG'
SELECT * FROM pagila.actor WHERE last_name = $1 ORDER BY first_name;
-- 'mary.17@sakilacustomer.org'
SELECT * FROM pagila.customer WHERE lower(email) = $1;
-- 'SMITH 17'
SELECT * FROM pagila.customer WHERE last_name = $1 AND first_name = 'MARY';
-- 1
SELECT * FROM pagila.customer WHERE store_id = $1 AND NOT activebool ORDER BY customer_id LIMIT 20;
-- '2022-05-01'
SELECT * FROM pagila.customer WHERE create_date = $1;
--
SELECT customer_id FROM pagila.customer WHERE last_update IS NULL ORDER BY customer_id LIMIT 100;
-- 17
SELECT * FROM pagila.rental WHERE customer_id = $1 ORDER BY rental_date DESC LIMIT 10;
-- 17
SELECT count(*) FROM pagila.rental WHERE customer_id = $1;
-- '2022-06-01', '2022-06-02'
SELECT * FROM pagila.rental WHERE rental_date >= $1 AND rental_date < $2;
-- '2022-06-01'
SELECT * FROM pagila.rental WHERE rental_period @> $1::timestamptz LIMIT 20;
-- 1
SELECT * FROM pagila.rental WHERE staff_id = $1 ORDER BY rental_date DESC LIMIT 20;
-- 17
SELECT c.last_name, count(*) FROM pagila.customer c JOIN pagila.rental r USING (customer_id) WHERE c.customer_id = $1 GROUP BY 1;
-- '2022-06-01'
SELECT * FROM pagila.rental ORDER BY rental_date DESC LIMIT 10;
-- ARRAY[17, 18, 19]
SELECT * FROM pagila.rental WHERE customer_id = ANY ($1::int[]);
-- 17
SELECT * FROM pagila.film_list WHERE fid = $1;
-- 17
SELECT * FROM pagila.payment WHERE customer_id = $1;
-- 17
DELETE FROM pagila.rental WHERE customer_id = $1;
-- 17
UPDATE pagila.customer SET active = 0 WHERE lower(email) = 'nobody' AND store_id = $1;
