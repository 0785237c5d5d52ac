-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.reviews_client;
