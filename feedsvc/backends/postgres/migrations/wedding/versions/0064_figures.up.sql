-- Phase 8, the dashboard's figures: kept in materialized views, for which there is no row-level
-- security. So the reader may not read them, but the views in front, which hold the same conditions
-- as a policy; security_barrier keeps a caller's functions from being asked before those.
-- The owner has to see all rows: a superuser or a login with BYPASSRLS.

CREATE TABLE wedding.refreshes (
    name text PRIMARY KEY,
    refreshed_at timestamptz NOT NULL DEFAULT now(),
    seconds double precision NOT NULL DEFAULT 0
);
INSERT INTO wedding.refreshes (name) VALUES ('month_figures_kept'), ('vendor_figures_kept');

CREATE MATERIALIZED VIEW wedding.month_figures_kept AS
WITH parts AS (
    SELECT tenant_id, date_trunc('month', created_at AT TIME ZONE 'UTC')::date AS month,
           count(*) AS contracts, sum(amount) AS contracted, 0::bigint AS payments,
           0::numeric AS received, 0::bigint AS leads
    FROM wedding.contracts WHERE status = 'signed' GROUP BY 1, 2
    UNION ALL
    SELECT tenant_id, date_trunc('month', paid_at AT TIME ZONE 'UTC')::date, 0, 0, count(*),
           sum(amount), 0
    FROM wedding.payments WHERE paid_at IS NOT NULL AND status = 'paid' GROUP BY 1, 2
    UNION ALL
    SELECT tenant_id, date_trunc('month', created_at AT TIME ZONE 'UTC')::date, 0, 0, 0, 0, count(*)
    FROM wedding.leads GROUP BY 1, 2
)
SELECT tenant_id, month, sum(contracts)::bigint AS contracts, sum(contracted) AS contracted,
       sum(payments)::bigint AS payments, sum(received) AS received, sum(leads)::bigint AS leads
FROM parts GROUP BY tenant_id, month;

CREATE MATERIALIZED VIEW wedding.vendor_figures_kept AS
SELECT v.tenant_id, v.id AS vendor_id, v.name,
       coalesce(r.reviews, 0) AS reviews, r.stars, coalesce(c.contracts, 0) AS contracts
FROM wedding.vendors v
LEFT JOIN (
    SELECT tenant_id, vendor_id, count(*) AS reviews, round(avg(stars), 2) AS stars
    FROM wedding.reviews WHERE published GROUP BY tenant_id, vendor_id
) AS r ON r.tenant_id = v.tenant_id AND r.vendor_id = v.id
LEFT JOIN (
    SELECT tenant_id, vendor_id, count(*) AS contracts
    FROM wedding.contracts WHERE status = 'signed' GROUP BY tenant_id, vendor_id
) AS c ON c.tenant_id = v.tenant_id AND c.vendor_id = v.id;

-- REFRESH … CONCURRENTLY compares by a unique index; pages are read by it too.
-- Built under a lock: the views are made in this transaction.
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX month_figures_key ON wedding.month_figures_kept (tenant_id, month);
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX vendor_figures_key ON wedding.vendor_figures_kept (tenant_id, vendor_id);

CREATE VIEW wedding.month_figures WITH (security_barrier) AS
SELECT k.tenant_id, k.month, k.contracts, k.contracted, k.payments, k.received, k.leads,
       (SELECT refreshed_at FROM wedding.refreshes WHERE name = 'month_figures_kept') AS as_of
FROM wedding.month_figures_kept k
WHERE k.tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
  AND (SELECT coalesce(current_setting('feedsvc.client', true), '') = '');
COMMENT ON VIEW wedding.month_figures IS 'Contracts, payments and leads by month; as_of is their age';

-- A couple sees the vendors, as in the directory, and the figures that go with them.
CREATE VIEW wedding.vendor_figures WITH (security_barrier) AS
SELECT k.tenant_id, k.vendor_id, k.name, k.reviews, k.stars, k.contracts,
       (SELECT refreshed_at FROM wedding.refreshes WHERE name = 'vendor_figures_kept') AS as_of
FROM wedding.vendor_figures_kept k
WHERE k.tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''));
COMMENT ON VIEW wedding.vendor_figures IS 'Reviews and contracts by vendor; as_of is their age';

-- With its owner's rights, for only the owner may refresh; no other right comes with it. One at a
-- time: a second call has nothing to do.
CREATE FUNCTION wedding.refresh_kept(kept text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    began timestamptz;
BEGIN
    IF NOT pg_try_advisory_xact_lock(7378697629483820646) THEN
        RETURN false;
    END IF;
    PERFORM FROM wedding.refreshes WHERE name = kept;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no figures are called %', kept;
    END IF;
    began := clock_timestamp();
    EXECUTE format('REFRESH MATERIALIZED VIEW CONCURRENTLY wedding.%I', kept);
    UPDATE wedding.refreshes
    SET refreshed_at = began, seconds = extract(epoch FROM clock_timestamp() - began)
    WHERE name = kept;
    RETURN true;
END
$$;

CREATE FUNCTION wedding.refresh_month_figures() RETURNS boolean LANGUAGE sql
    RETURN wedding.refresh_kept('month_figures_kept');
CREATE FUNCTION wedding.refresh_vendor_figures() RETURNS boolean LANGUAGE sql
    RETURN wedding.refresh_kept('vendor_figures_kept');
CREATE FUNCTION wedding.refresh_figures() RETURNS boolean LANGUAGE sql
    RETURN wedding.refresh_month_figures() AND wedding.refresh_vendor_figures();
COMMENT ON FUNCTION wedding.refresh_figures() IS
    'Refresh the figures beside their readers; false if another session is at it';

REVOKE ALL ON FUNCTION wedding.refresh_kept(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION wedding.refresh_kept(text) TO wedding_reader;
GRANT SELECT ON wedding.month_figures, wedding.vendor_figures TO wedding_reader;
