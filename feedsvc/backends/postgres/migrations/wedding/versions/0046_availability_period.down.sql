-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.availability_period;
