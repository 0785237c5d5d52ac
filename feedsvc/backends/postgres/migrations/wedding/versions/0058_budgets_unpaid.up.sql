-- concurrently
-- Phase 6. What is to be paid next.
CREATE INDEX CONCURRENTLY budgets_unpaid ON wedding.budgets (tenant_id, due, id) WHERE NOT paid;
