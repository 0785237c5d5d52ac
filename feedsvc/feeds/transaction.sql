-- Sets the reader for row-level security until the transaction ends. A policy asks for it with
-- (select current_setting('feedsvc.tenant', true)). The snapshot is the one that all is read in. That
-- of a standby does not say what it sees, so in its place stands one that sees nothing. The last
-- column is the timeline, by which an old primary that came back is known.
select
    set_config('feedsvc.tenant', $1, true),
    set_config('feedsvc.role', $2, true),
    set_config('feedsvc.client', $3, true),
    case when pg_is_in_recovery() then '3:3:' else pg_current_snapshot()::text end,
    case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end
