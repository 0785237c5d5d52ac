-- The change log: the keys of changed rows, written by triggers in the transaction that changes them
-- (docs/changes.md). `op` is u (a row is there), g (gone from this key or scope), m (like u, of too
-- many rows to name their tags), o (too many rows to name), t (TRUNCATE), w (what a view, a policy or
-- `watch` reads) or i (an operator's word). `key` has the rows' tokens, a blank between two; `old` a
-- JSON array with, for each of them, the array of the former row's columns `log_feeds.old_columns`,
-- or null; `tags` four bytes for each narrow tag. Rows without a key concern all of their scope.
CREATE TABLE feedsvc.log (
    xid xid8 NOT NULL,
    scope bigint NOT NULL,
    feed integer NOT NULL,
    slot smallint NOT NULL,
    op "char" NOT NULL,
    key text,
    tags bytea,
    old text
) PARTITION BY LIST (slot);

-- A ring of partitions that always exist: none can be missing when a row is to be written. Nothing in
-- them is updated or deleted, and TRUNCATE takes all of a partition, so there is nothing to vacuum.
DO $$
BEGIN
    FOR slot IN 0..7 LOOP
        EXECUTE format(
            'CREATE TABLE feedsvc.log_%1$s PARTITION OF feedsvc.log FOR VALUES IN (%1$s) '
            'WITH (autovacuum_enabled = false, toast.autovacuum_enabled = false)', slot
        );
    END LOOP;
END
$$;

-- For one scope's changes since a cursor, and for all changes since the last look.
-- A scope's entries come in the order of their numbers, so a page that was split is not written again.
CREATE INDEX log_scope_xid ON feedsvc.log (scope, xid) WITH (fillfactor = 100);
CREATE INDEX log_xid ON feedsvc.log (xid) WITH (fillfactor = 100);

-- The slot that is written now; `log_maintain` replaces it. SQL that the planner inlines, so that a
-- plan depends on it and is made anew when it is replaced; STABLE, for an IMMUTABLE one is folded
-- without that.
CREATE FUNCTION feedsvc.log_slot() RETURNS smallint LANGUAGE sql STABLE PARALLEL SAFE
    RETURN 0::smallint;

-- The windows that hold rows, each in one slot. A window is sealed by a snapshot that sees every
-- transaction that wrote to it.
CREATE TABLE feedsvc.log_windows (
    slot smallint PRIMARY KEY CHECK (slot BETWEEN 0 AND 7),
    began timestamptz NOT NULL,
    ended timestamptz,
    sealed pg_snapshot
);
INSERT INTO feedsvc.log_windows VALUES (0, clock_timestamp(), NULL, NULL);

-- The seal of the newest window that was trimmed: a snapshot that does not cover it may lack changes.
CREATE TABLE feedsvc.log_floor (
    is_the_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_the_only_row),
    floor pg_snapshot
);
INSERT INTO feedsvc.log_floor DEFAULT VALUES;

-- The datasets whose changes are logged. `since` sees all that was committed before they were. Rows of
-- the scope `everyone` concern each reader; it is also the seed of the tenants' scopes.
CREATE TABLE feedsvc.log_feeds (
    feed integer PRIMARY KEY,
    dataset text NOT NULL,
    everyone bigint NOT NULL UNIQUE,
    old_columns text[] NOT NULL,
    since pg_snapshot NOT NULL
);

-- A life of the database: an unlogged row is gone after a crash, a promotion and a restore, when
-- transactions that were seen may be lost and their numbers given to others.
CREATE UNLOGGED TABLE feedsvc.log_epoch (
    is_the_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_the_only_row),
    origin text NOT NULL,
    epoch uuid NOT NULL
);

-- The present epoch, made anew where there is none, or where it came with a copy of the database.
CREATE FUNCTION feedsvc.log_life() RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    here constant text := concat_ws('/',
        (SELECT system_identifier FROM pg_control_system()),
        (SELECT oid FROM pg_database WHERE datname = current_database()));
    found_epoch uuid;
BEGIN
    FOR attempt IN 1..3 LOOP
        SELECT epoch INTO found_epoch FROM feedsvc.log_epoch WHERE origin = here;
        IF FOUND THEN
            RETURN found_epoch;
        END IF;
        DELETE FROM feedsvc.log_epoch WHERE origin <> here;
        INSERT INTO feedsvc.log_epoch (origin, epoch) VALUES (here, gen_random_uuid())
            ON CONFLICT DO NOTHING;
    END LOOP;
    RAISE EXCEPTION 'the epoch of the change log is made by another session'
        USING ERRCODE = 'lock_not_available';
END
$$;

-- A text as a part of a row's token: percent-encoded, but for what RFC 3986 calls unreserved.
CREATE FUNCTION feedsvc.log_quoted(part text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(string_agg(
        CASE
            WHEN byte BETWEEN 48 AND 57 OR byte BETWEEN 65 AND 90 OR byte BETWEEN 97 AND 122
                OR byte IN (45, 46, 95, 126)
            THEN chr(byte)
            ELSE '%' || upper(lpad(to_hex(byte), 2, '0'))
        END, '' ORDER BY place), '')
    FROM (SELECT convert_to(part, 'UTF8') AS bytes) AS whole,
        LATERAL generate_series(0, octet_length(bytes) - 1) AS place,
        LATERAL get_byte(bytes, place) AS byte
$$;

-- An operator's word that what carries these tags is out of date; $1: four bytes for each tag.
CREATE FUNCTION feedsvc.log_invalidation(bytea) RETURNS void LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO feedsvc.log (xid, scope, feed, slot, op, tags)
    VALUES (pg_current_xact_id(), 0, 0, feedsvc.log_slot(), 'i', $1)
$$;

-- Seals windows that are over, trims the oldest that is older than `retention` or beyond `max_bytes`
-- of log, and begins a new one after a sixth of `retention`. It waits for no lock longer than 50 ms,
-- and where a window can't be trimmed more is kept. The answer says what was done, and what not.
CREATE FUNCTION feedsvc.log_maintain(retention interval, max_bytes bigint) RETURNS jsonb
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms'
AS $$
DECLARE
    lock constant bigint := x'6665656400000003'::bigint;
    checked_at constant timestamptz := clock_timestamp();
    present feedsvc.log_windows;
    oldest feedsvc.log_windows;
    part regclass;
    bytes bigint;
    following smallint;
    trimmed smallint;
    blocked text;
    is_late boolean;
    began_anew boolean := false;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the change log is maintained in READ COMMITTED, for seals are new snapshots';
    END IF;
    IF NOT pg_try_advisory_xact_lock(lock) THEN
        RETURN jsonb_build_object('blocked', 'another session maintains the log');
    END IF;
    FOR oldest IN
        SELECT * FROM feedsvc.log_windows WHERE ended IS NOT NULL AND sealed IS NULL
    LOOP
        -- A transaction leaves the snapshots before it releases its locks, so the next statement's
        -- snapshot sees every one that wrote here and has no lock any more.
        IF NOT EXISTS (
            SELECT FROM pg_locks
            WHERE locktype = 'relation' AND relation = format('feedsvc.log_%s', oldest.slot)::regclass
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND mode <> 'AccessShareLock'
        ) THEN
            UPDATE feedsvc.log_windows SET sealed = pg_current_snapshot() WHERE slot = oldest.slot;
        END IF;
    END LOOP;
    SELECT sum(pg_total_relation_size(format('feedsvc.log_%s', slot)::regclass)) INTO bytes
        FROM generate_series(0, 7) AS slot;
    SELECT * INTO oldest FROM feedsvc.log_windows WHERE ended IS NOT NULL ORDER BY began LIMIT 1;
    IF oldest.ended + retention <= checked_at OR bytes > max_bytes AND oldest.ended IS NOT NULL THEN
        part := format('feedsvc.log_%s', oldest.slot)::regclass;
        IF oldest.sealed IS NULL THEN
            blocked := 'a transaction that wrote to the oldest window is open';
        ELSE
            BEGIN
                EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', part);
                -- A session that was to write here before the window was over may have done so since.
                EXECUTE format(
                    'SELECT EXISTS (SELECT FROM %s WHERE xid >= pg_snapshot_xmin($1) '
                    'AND NOT pg_visible_in_snapshot(xid, $1))', part
                ) INTO is_late USING oldest.sealed;
                IF is_late THEN
                    oldest.sealed := pg_current_snapshot();
                END IF;
                EXECUTE format('TRUNCATE %s', part);
                trimmed := oldest.slot;
            EXCEPTION WHEN lock_not_available THEN
                blocked := 'the oldest window is being read or written';
            END;
        END IF;
    END IF;
    IF trimmed IS NOT NULL THEN
        -- Seals follow each other, but for one that was taken late.
        UPDATE feedsvc.log_floor SET floor = oldest.sealed
            WHERE floor IS NULL OR pg_snapshot_xmax(floor) <= pg_snapshot_xmax(oldest.sealed);
        DELETE FROM feedsvc.log_windows WHERE slot = trimmed;
    END IF;
    SELECT * INTO present FROM feedsvc.log_windows WHERE ended IS NULL;
    following := (present.slot + 1) % 8;
    IF (
        present.began + retention / 6 <= checked_at
        OR pg_total_relation_size(format('feedsvc.log_%s', present.slot)::regclass) > max_bytes / 8
    ) AND NOT EXISTS (SELECT FROM feedsvc.log_windows WHERE slot = following) THEN
        EXECUTE format(
            'CREATE OR REPLACE FUNCTION feedsvc.log_slot() RETURNS smallint LANGUAGE sql STABLE '
            'PARALLEL SAFE RETURN %s::smallint', following
        );
        UPDATE feedsvc.log_windows SET ended = checked_at WHERE slot = present.slot;
        INSERT INTO feedsvc.log_windows VALUES (following, checked_at, NULL, NULL);
        began_anew := true;
    END IF;
    RETURN jsonb_build_object(
        'slot', (SELECT slot FROM feedsvc.log_windows WHERE ended IS NULL), 'bytes', bytes,
        'windows', (SELECT count(*) FROM feedsvc.log_windows), 'trimmed', trimmed,
        'began', began_anew, 'blocked', blocked,
        'oldest', (SELECT extract(epoch FROM checked_at - min(began)) FROM feedsvc.log_windows)
    );
END
$$;

REVOKE EXECUTE ON FUNCTION feedsvc.log_life(), feedsvc.log_invalidation(bytea),
    feedsvc.log_maintain(interval, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION feedsvc.log_life(), feedsvc.log_invalidation(bytea),
    feedsvc.log_maintain(interval, bigint) TO feedsvc_service;
-- Writers need no right here: the triggers' functions are their owner's.
GRANT SELECT ON feedsvc.log, feedsvc.log_windows, feedsvc.log_floor, feedsvc.log_feeds,
    feedsvc.log_epoch, feedsvc.log_0, feedsvc.log_1, feedsvc.log_2, feedsvc.log_3, feedsvc.log_4,
    feedsvc.log_5, feedsvc.log_6, feedsvc.log_7 TO feedsvc_service;
