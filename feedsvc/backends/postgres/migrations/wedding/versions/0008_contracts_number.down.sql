-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.contracts_number;
