-- What was committed since a snapshot, and in the first row where that leads. One statement, so that
-- all of it is of one snapshot, which READ COMMITTED takes behind the locks on the log's partitions:
-- a partition that is emptied meanwhile shows in `floor`. $1 text: the snapshot, null for none of the
-- rows; $2 int: the most rows.
select
    pg_current_snapshot()::text as snapshot,
    (select floor::text from feedsvc.log_floor) as floor,
    (select epoch::text from feedsvc.log_epoch) as epoch,
    current_setting('transaction_isolation') as isolation,
    null::text as xid, null::int8 as scope, null::int4 as feed, null::text as op, null::bytea as tags
union all
(
    select null, null, null, null, written.xid::text, scope, feed, op::text, tags
    from (
        select xid, scope, feed, op, tags
        from feedsvc.log where xid >= pg_snapshot_xmax($1::text::pg_snapshot)
        union all
        select xid, scope, feed, op, tags
        from feedsvc.log where xid = any(array(select pg_snapshot_xip($1::text::pg_snapshot)))
    ) as written
    limit $2
)
