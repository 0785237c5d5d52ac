-- concurrently
DROP INDEX CONCURRENTLY IF EXISTS wedding.budgets_category;
