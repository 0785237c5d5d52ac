-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.payments_newest;
