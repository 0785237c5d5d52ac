-- concurrently
-- Phase 2. The lines of a category, by the day that they are due.
CREATE INDEX CONCURRENTLY budgets_category ON wedding.budgets (tenant_id, category, due, id);
