-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.activity_newest;
