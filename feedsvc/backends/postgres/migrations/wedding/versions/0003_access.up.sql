-- Settings are read in a sub-select of their own: once for a query, not once for each row.
-- nullif: a transaction without a tenant reads NULL, one after a rolled-back SET LOCAL reads '',
-- and neither may match anything. feedsvc.client is '' for a member, who sees the whole tenant; it
-- is compared as text so that a setting that is no number hides rows instead of raising an error.
-- The comparison with '' is inside its sub-select because a boolean of unknown value counts as one
-- half to the planner, and an equality of unknown value as one in 200: with that, it takes a tenant
-- of 700,000 rows for a small one and sorts all of it for each page instead of reading an index.
-- The tenant stands alone on the left, so an index led by tenant_id serves every policy.
-- There are policies for SELECT alone, for nobody writes through wedding_reader.

GRANT USAGE ON SCHEMA wedding TO wedding_reader;
GRANT SELECT ON wedding.tenants, wedding.clients, wedding.budgets, wedding.analytics,
    wedding.vendors, wedding.tasks, wedding.timeline, wedding.notifications TO wedding_reader;

-- FORCE: otherwise the owner's login, and every function that runs with its rights, sees it all.
ALTER TABLE wedding.tenants ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE wedding.clients ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE wedding.budgets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE wedding.analytics ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE wedding.vendors ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE wedding.tasks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE wedding.timeline ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE wedding.notifications ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

-- The supplier's own name and city: a couple knows whom it has hired.
CREATE POLICY own_tenant ON wedding.tenants FOR SELECT TO wedding_reader USING (
    id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
);

-- The supplier's vendors are a directory that it shows to its couples.
CREATE POLICY own_tenant ON wedding.vendors FOR SELECT TO wedding_reader USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
);

-- Figures about all of a supplier's couples: none of a single couple's business.
CREATE POLICY own_tenant ON wedding.analytics FOR SELECT TO wedding_reader USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
    AND (SELECT coalesce(current_setting('feedsvc.client', true), '') = '')
);

-- A couple sees itself alone.
CREATE POLICY own_tenant ON wedding.clients FOR SELECT TO wedding_reader USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
    AND ((SELECT coalesce(current_setting('feedsvc.client', true), '') = '')
         OR id::text = (SELECT current_setting('feedsvc.client', true)))
);

-- A couple's money, tasks and day are its own.
CREATE POLICY own_tenant ON wedding.budgets FOR SELECT TO wedding_reader USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
    AND ((SELECT coalesce(current_setting('feedsvc.client', true), '') = '')
         OR client_id::text = (SELECT current_setting('feedsvc.client', true)))
);
CREATE POLICY own_tenant ON wedding.tasks FOR SELECT TO wedding_reader USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
    AND ((SELECT coalesce(current_setting('feedsvc.client', true), '') = '')
         OR client_id::text = (SELECT current_setting('feedsvc.client', true)))
);
CREATE POLICY own_tenant ON wedding.timeline FOR SELECT TO wedding_reader USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
    AND ((SELECT coalesce(current_setting('feedsvc.client', true), '') = '')
         OR client_id::text = (SELECT current_setting('feedsvc.client', true)))
);

-- Without a client_id it is the supplier's internal notice: NULL equals no couple.
CREATE POLICY own_tenant ON wedding.notifications FOR SELECT TO wedding_reader USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
    AND ((SELECT coalesce(current_setting('feedsvc.client', true), '') = '')
         OR client_id::text = (SELECT current_setting('feedsvc.client', true)))
);
