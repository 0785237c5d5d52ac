-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.leads_email;
