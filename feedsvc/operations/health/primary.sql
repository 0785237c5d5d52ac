-- What the primary says of itself to a login that owns nothing. Of others' sessions it sees only
-- that they are there, unless it is granted pg_read_all_stats.
select
    pg_is_in_recovery() as standby,
    current_setting('server_version') as version,
    extract(epoch from clock_timestamp())::float8 as clock,
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int
        as most_connections,
    (select coalesce(sum(s.numbackends), 0) from pg_stat_database s)::int as connections,
    (select r.rolconnlimit from pg_roles r where r.rolname = current_user) as most_own,
    (select count(*) from pg_stat_activity a where a.usename = current_user)::int as own,
    -- Transactions that have written and not ended: the oldest one's number, and the next to come.
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint as oldest_writer,
    pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next_writer,
    (
        select max(extract(epoch from clock_timestamp() - a.xact_start))
        from pg_stat_activity a
        where a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
    )::float8 as longest_seen,
    (
        select max(extract(epoch from clock_timestamp() - p.prepared)) from pg_prepared_xacts p
    )::float8 as longest_prepared
