-- One for each order that the demo's datasets offer: the tenant, the order's columns, the key.
-- Descending orders read the same index backwards. None is over a numeric or an enum: their
-- comparisons are not leakproof, so beside row-level security PostgreSQL won't start an index
-- scan at them, and every page would read the tenant's rows from the first one on.
CREATE INDEX clients_newest ON wedding.clients (tenant_id, created_at, id);
CREATE INDEX clients_name ON wedding.clients (tenant_id, partner_one, id);
CREATE INDEX clients_wedding_date ON wedding.clients (tenant_id, wedding_date);
CREATE INDEX budgets_updated ON wedding.budgets (tenant_id, updated_at, id);
CREATE INDEX analytics_metric ON wedding.analytics (tenant_id, metric, day);
CREATE INDEX vendors_name ON wedding.vendors (tenant_id, name, id);
CREATE INDEX tasks_priority ON wedding.tasks (tenant_id, priority, id);
CREATE INDEX tasks_updated ON wedding.tasks (tenant_id, updated_at, id);
CREATE INDEX timeline_schedule ON wedding.timeline (tenant_id, starts_at, id);
CREATE INDEX notifications_newest ON wedding.notifications (tenant_id, sent_at, id);

-- A couple's rows among a tenant's hundreds of thousands, in key order; also for the foreign keys.
CREATE INDEX budgets_client ON wedding.budgets (tenant_id, client_id, id);
CREATE INDEX tasks_client ON wedding.tasks (tenant_id, client_id, id);
CREATE INDEX timeline_client ON wedding.timeline (tenant_id, client_id, id);
CREATE INDEX notifications_client ON wedding.notifications (tenant_id, client_id, id);
