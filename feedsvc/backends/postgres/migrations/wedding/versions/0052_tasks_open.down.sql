-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.tasks_open;
