-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.documents_deleted;
