-- What a new session is on, and which of the settings that were asked for it began without: a pooler
-- may have kept them to itself. They are set here, which changes nothing for one that has them; behind
-- a pooler, which makes up the numbers of its sessions, for this transaction alone unless $4 says so.
-- $1 text[]: the settings' names, $2 text[]: their values, $3: the session's number as it was given.
select
    pg_backend_pid() <> $3::int as pooled,
    (select s.system_identifier from pg_control_system() s) as cluster,
    (select d.oid from pg_database d where d.datname = current_database()) as database,
    case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end
        as timeline_id,
    extract(epoch from pg_postmaster_start_time())::float8 as started,
    (
        select coalesce(array_agg(w.name), '{}')
        from (
            select
                asked.name,
                current_setting(asked.name) as had,
                set_config(asked.name, asked.value, pg_backend_pid() <> $3 and not $4::bool) as has
            from unnest($1::text[], $2::text[]) as asked (name, value)
        ) w
        where w.had is distinct from w.has
    ) as lacking
