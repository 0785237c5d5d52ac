-- Which database this is, on which timeline, and how far it is: what a primary has made durable, or
-- a standby has replayed. Both are positions in the same log.
select
    pg_is_in_recovery() as standby,
    (
        case
            when pg_is_in_recovery() then coalesce(pg_last_wal_replay_lsn(), '0/0')
            else pg_current_wal_flush_lsn()
        end - '0/0'::pg_lsn
    )::bigint as position,
    (select system_identifier from pg_control_system()) as cluster,
    (select oid from pg_database where datname = current_database()) as database,
    (select timeline_id from pg_control_checkpoint()) as timeline_id
