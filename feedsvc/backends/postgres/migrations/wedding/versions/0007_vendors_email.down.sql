-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.vendors_email;
