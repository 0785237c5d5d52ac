-- The places of the log, feed and scope, where this snapshot sees rows that a former one does not, with
-- their transactions; the snapshot; what says that the log is another one, and how far back it
-- reaches. $1 text: the former snapshot, $2 integer[]: feeds. Both bounds of a range are there for the
-- planner (decision 0294).
select
    pg_current_snapshot()::text as snapshot,
    (select e.origin || '/' || e.epoch from feedsvc.log_epoch e) as life,
    (select l.floor::text from feedsvc.log_floor l) as floor,
    array(
        select (logged.feed, logged.scope, logged.xid)::text
        from (
            select l.feed, l.scope, l.xid from feedsvc.log l
            where l.xid >= pg_snapshot_xmax($1::text::pg_snapshot)
                and l.xid < pg_snapshot_xmax(pg_current_snapshot())
            union
            select l.feed, l.scope, l.xid from feedsvc.log l
            where l.xid = any (array(select pg_snapshot_xip($1::text::pg_snapshot)))
                and l.xid >= pg_snapshot_xmin($1::text::pg_snapshot)
                and l.xid < pg_snapshot_xmax($1::text::pg_snapshot)
        ) as logged
        where logged.feed = any ($2::integer[])
    ) as written
