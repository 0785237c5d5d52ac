-- The materialized views that the service refreshes, as `[NAME.refreshed]` of the datasets file has
-- them (docs/figures.md). `feedsvc migrate triggers` enters them; `relation` and `by_function` are quoted.
-- `seen` is the state of the tables behind it as of the last refresh, `failures` how often it was
-- begun since then, which is one while a refresh is under way.
CREATE TABLE feedsvc.refreshes (
    relation text PRIMARY KEY,
    datasets text[] NOT NULL,
    after double precision NOT NULL,
    every double precision NOT NULL,
    by_function text,
    seen text,
    refreshed_at timestamptz,
    seconds double precision,
    tried_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    fault text
);
COMMENT ON TABLE feedsvc.refreshes IS
    'Materialized views that the service refreshes: when, how long it took, and the last fault';

-- The state of all that a view reads, directly and through others, partitions and children too: a
-- change of a row moves a counter, TRUNCATE and what rewrites a table its file, a crash the epoch.
-- Counters come within ten seconds of a commit, so a change may count twice, but is not passed over.
CREATE FUNCTION feedsvc.refresh_inputs(view regclass) RETURNS text LANGUAGE sql VOLATILE
    SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE behind (oid) AS (
        SELECT view::oid
        UNION
        SELECT further.oid
        FROM behind b
        CROSS JOIN LATERAL (
            SELECT d.refobjid AS oid
            FROM pg_rewrite r
            JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                AND d.refclassid = 'pg_class'::regclass
            WHERE r.ev_class = b.oid AND r.ev_type = '1'
            UNION ALL
            SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = b.oid
        ) AS further
    )
    SELECT md5(concat_ws(' ', (SELECT e.epoch FROM feedsvc.log_epoch e), string_agg(
        concat_ws(' ', c.oid, c.relfilenode, pg_stat_get_tuples_inserted(c.oid),
            pg_stat_get_tuples_updated(c.oid), pg_stat_get_tuples_deleted(c.oid)),
        ',' ORDER BY c.oid
    )))
    FROM behind b JOIN pg_class c ON c.oid = b.oid
    WHERE c.oid <> view AND c.relkind IN ('r', 'p', 'm')
$$;

-- The view whose refresh is due, null if there is none, or one is under way. The try is on record
-- before it begins: one that takes the server down with it is not made again at once. A refresh gets
-- a fifth of the time at most; one that failed is tried again after twice as long each time.
CREATE FUNCTION feedsvc.refresh_due() RETURNS text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
DECLARE
    checked_at constant timestamptz := clock_timestamp();
    one feedsvc.refreshes;
    found oid;
    since timestamptz;
    pause double precision;
BEGIN
    IF NOT pg_try_advisory_xact_lock(x'6665656400000005'::bigint) THEN
        RETURN NULL;
    END IF;
    FOR one IN SELECT * FROM feedsvc.refreshes ORDER BY tried_at NULLS FIRST, relation LOOP
        since := CASE WHEN one.failures > 0 THEN one.tried_at ELSE one.refreshed_at END;
        pause := CASE
            WHEN one.failures > 0
            THEN least(greatest(one.after, 1) * 2 ^ least(one.failures, 20), greatest(3600, one.every))
            ELSE greatest(one.after, coalesce(one.seconds, 0) * 4)
        END;
        IF since IS NOT NULL AND since + make_interval(secs => pause) > checked_at THEN
            CONTINUE;
        END IF;
        -- Not by to_regclass: without USAGE of the schema of one it would fail for all.
        SELECT c.oid INTO found
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE ARRAY[n.nspname, c.relname]::text[] = parse_ident(one.relation);
        IF one.failures = 0 AND one.refreshed_at + make_interval(secs => one.every) > checked_at
            AND found IS NOT NULL AND feedsvc.refresh_inputs(found) IS NOT DISTINCT FROM one.seen
        THEN
            CONTINUE;
        END IF;
        UPDATE feedsvc.refreshes SET tried_at = checked_at, failures = failures + 1
            WHERE relation = one.relation;
        RETURN one.relation;
    END LOOP;
    RETURN NULL;
END
$$;

-- Refresh a view beside its readers, and log that all pages of its datasets are out of date, in one
-- transaction; false if another session refreshes one. For timers of one's own as well: a REFRESH
-- that is run by hand stands nowhere in the log.
CREATE FUNCTION feedsvc.refresh(wanted text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one feedsvc.refreshes;
    began timestamptz;
    inputs text;
BEGIN
    IF NOT pg_try_advisory_xact_lock(x'6665656400000005'::bigint) THEN
        RETURN false;
    END IF;
    SELECT * INTO one FROM feedsvc.refreshes WHERE to_regclass(relation) = to_regclass(wanted);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no dataset says that % is refreshed', wanted
            USING HINT = 'Name it in [NAME.refreshed] and run `feedsvc migrate triggers`.';
    END IF;
    inputs := feedsvc.refresh_inputs(one.relation::regclass);
    began := clock_timestamp();
    IF one.by_function IS NOT NULL THEN
        EXECUTE format('SELECT %s()', one.by_function);
    ELSIF (SELECT relispopulated FROM pg_class WHERE oid = one.relation::regclass) THEN
        EXECUTE format('REFRESH MATERIALIZED VIEW CONCURRENTLY %s', one.relation::regclass);
    ELSE
        EXECUTE format('REFRESH MATERIALIZED VIEW %s', one.relation::regclass);
    END IF;
    UPDATE feedsvc.refreshes
        SET seen = inputs, refreshed_at = began, failures = 0, fault = NULL,
            seconds = extract(epoch FROM clock_timestamp() - began)
        WHERE relation = one.relation;
    INSERT INTO feedsvc.log (xid, scope, feed, slot, op)
        SELECT pg_current_xact_id(), f.everyone, f.feed, feedsvc.log_slot(), 'w'
        FROM feedsvc.log_feeds f WHERE f.dataset = ANY (one.datasets);
    RETURN true;
END
$$;
COMMENT ON FUNCTION feedsvc.refresh(text) IS
    'Refresh a materialized view of [NAME.refreshed] beside its readers; false if one is under way';

-- The reason why a refresh failed, for health.
CREATE FUNCTION feedsvc.refresh_failed(wanted text, why text) RETURNS void LANGUAGE sql
    SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS $$
    UPDATE feedsvc.refreshes SET fault = left(why, 300) WHERE relation = wanted AND failures > 0
$$;

REVOKE EXECUTE ON FUNCTION feedsvc.refresh_inputs(regclass), feedsvc.refresh_due(),
    feedsvc.refresh(text), feedsvc.refresh_failed(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION feedsvc.refresh_due(), feedsvc.refresh(text),
    feedsvc.refresh_failed(text, text) TO feedsvc_service;
GRANT SELECT ON feedsvc.refreshes TO feedsvc_service;
