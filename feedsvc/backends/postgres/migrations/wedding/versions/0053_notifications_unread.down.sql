-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.notifications_unread;
