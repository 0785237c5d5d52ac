-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.guests_name;
