-- The change log as it is: its size, its windows, who keeps the oldest of them, and who keeps writers
-- waiting. $1 float8: the seconds that the log is kept. Other logins' transactions have no age without
-- pg_read_all_stats; one that wrote to a window that is over is at least as old as its end.
WITH parts AS MATERIALIZED (
    SELECT c.oid, CASE WHEN c.relname <> 'log' THEN right(c.relname, 1)::smallint END AS slot
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = 'feedsvc'
    WHERE c.relname ~ '^log(_[0-7])?$' AND c.relkind IN ('r', 'p')
), locks AS MATERIALIZED (
    SELECT * FROM pg_locks
), held AS MATERIALIZED (
    SELECT l.relation, l.mode, l.granted, l.pid, a.application_name, x.gid,
        extract(epoch FROM clock_timestamp() - coalesce(x.prepared, a.xact_start))::float8 AS age
    FROM locks AS l
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    -- A prepared transaction has no session; its lock on its own number leads to its name.
    LEFT JOIN LATERAL (
        SELECT p.gid, p.prepared
        FROM locks AS t JOIN pg_prepared_xacts AS p ON p.transaction = t.transactionid
        WHERE t.virtualtransaction = l.virtualtransaction AND t.pid IS NULL
    ) AS x ON l.pid IS NULL
    WHERE l.locktype = 'relation' AND l.relation IN (SELECT oid FROM parts)
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.pid IS DISTINCT FROM pg_backend_pid()
), windows AS MATERIALIZED (
    SELECT w.slot, w.began, w.ended, w.sealed, p.oid
    FROM feedsvc.log_windows AS w JOIN parts AS p USING (slot)
), oldest AS MATERIALIZED (
    SELECT * FROM windows WHERE ended IS NOT NULL ORDER BY began LIMIT 1
), blocker AS MATERIALIZED (
    SELECT h.pid, h.application_name, h.gid,
        coalesce(h.age, extract(epoch FROM clock_timestamp() - w.ended))::float8 AS age
    FROM windows AS w JOIN held AS h ON h.relation = w.oid AND h.granted
    WHERE w.ended IS NOT NULL
        AND (h.mode <> 'AccessShareLock' OR w.sealed IS NOT NULL AND w.slot = (SELECT slot FROM oldest))
    ORDER BY age DESC LIMIT 1
), locker AS MATERIALIZED (
    SELECT h.pid, h.application_name, h.gid, h.age, h.mode
    FROM held AS h
    JOIN parts AS p ON p.oid = h.relation
    WHERE h.granted AND h.mode IN (
        'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'
    ) AND (p.slot IS NULL OR p.slot = (SELECT slot FROM windows WHERE ended IS NULL))
    ORDER BY h.age DESC NULLS FIRST LIMIT 1
)
SELECT
    (
        -- A partition that is locked can't be measured without waiting: then there is no sum.
        SELECT sum(pg_total_relation_size(p.oid)) FROM parts AS p
        WHERE NOT EXISTS (SELECT FROM held WHERE mode = 'AccessExclusiveLock')
    )::bigint AS bytes,
    (SELECT count(*) FROM windows)::int AS windows,
    (SELECT count(*) FROM windows WHERE ended IS NOT NULL AND sealed IS NULL)::int AS unsealed,
    (SELECT extract(epoch FROM clock_timestamp() - min(began)) FROM windows)::float8 AS oldest,
    (SELECT extract(epoch FROM clock_timestamp() - ended) - $1::float8 FROM oldest)::float8 AS overdue,
    blocker.pid AS blocker_pid, blocker.application_name AS blocker_name,
    blocker.gid AS blocker_gid, blocker.age AS blocker_age,
    locker.pid AS locker_pid, locker.application_name AS locker_name,
    locker.gid AS locker_gid, locker.age AS locker_age, locker.mode AS locker_mode
FROM (SELECT) AS nothing
LEFT JOIN blocker ON true
LEFT JOIN locker ON true
