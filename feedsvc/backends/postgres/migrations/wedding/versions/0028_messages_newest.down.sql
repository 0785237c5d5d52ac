-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.messages_newest;
