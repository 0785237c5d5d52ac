-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.clients_notes;
