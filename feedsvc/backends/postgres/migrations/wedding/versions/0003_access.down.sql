DROP POLICY own_tenant ON wedding.tenants;
DROP POLICY own_tenant ON wedding.clients;
DROP POLICY own_tenant ON wedding.budgets;
DROP POLICY own_tenant ON wedding.analytics;
DROP POLICY own_tenant ON wedding.vendors;
DROP POLICY own_tenant ON wedding.tasks;
DROP POLICY own_tenant ON wedding.timeline;
DROP POLICY own_tenant ON wedding.notifications;

-- Row-level security stays on: without a policy nobody but a superuser sees a row, which is the
-- safe side for the moment until the tables go.
REVOKE ALL ON ALL TABLES IN SCHEMA wedding FROM wedding_reader;
REVOKE ALL ON SCHEMA wedding FROM wedding_reader;
