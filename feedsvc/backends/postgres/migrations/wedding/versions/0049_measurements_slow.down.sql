-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.measurements_slow;
