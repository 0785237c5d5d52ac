-- Which database this is, and on which of its timelines: after a fail-over that lost commits, or a
-- restore, transaction numbers come again for other transactions.
select concat_ws(
    '/',
    (select system_identifier from pg_control_system()),
    (select oid from pg_database where datname = current_database()),
    case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_lsn()), 8) end
)
