-- How a feed is logged and from where on, read in the snapshot that its changes are read in. $1 text:
-- the dataset, $2 text: its relation as SQL names it, $3 text: the caller's tenant as PostgreSQL writes
-- it, NULL where the log has one scope alone, $4 oid[]: functions that its policies are known to call,
-- $5 oid[]: the relations that are known to be behind a view.
-- No row where the dataset is not logged.
with policy as (
    select array_agg((
        p.oid, p.xmin::text, p.polcmd in ('r', '*') and (p.polroles = '{0}' or exists (
            select from unnest(p.polroles) as granted (role)
            where granted.role = 0 or pg_has_role(granted.role, 'USAGE')
        ))
    ) order by p.oid)::text as every
    from pg_policy p
)
select
    f.feed,
    f.everyone,
    array_remove(array[f.everyone, hashtextextended($3::text collate "C", f.everyone)], null) as scopes,
    f.old_columns,
    c.relkind::text as kind,
    f.since::text as since,
    (select l.floor::text from feedsvc.log_floor l) as floor,
    (select e.origin || '/' || e.epoch from feedsvc.log_epoch e) as epoch,
    coalesce((select every from policy), '') as policies,
    -- As long as it is the same, so are the rules. Those of partitions are not known so quickly.
    case when c.relkind = 'v' then (
        select concat_ws(
            ' ', f.feed, f.old_columns, c.oid, (select every from policy),
            array_agg((
                b.oid, b.xmin,
                (select array_agg((a.attnum, a.xmin::text) order by a.attnum) from pg_attribute a where a.attrelid = b.oid),
                (select array_agg((t.oid, t.xmin::text) order by t.oid) from pg_trigger t where t.tgrelid = b.oid),
                (select array_agg((r.oid, r.xmin::text) order by r.oid) from pg_rewrite r where r.ev_class = b.oid)
            ) order by b.oid)
        )
        from pg_class b where b.oid = any ($5::oid[])
        having not bool_or(b.relhassubclass)
    ) when not c.relhassubclass then concat_ws(
        ' ', f.feed, c.oid, c.xmin, (select every from policy),
        (select array_agg((a.attnum, a.xmin::text) order by a.attnum) from pg_attribute a where a.attrelid = c.oid),
        (select array_agg((t.oid, t.xmin::text) order by t.oid) from pg_trigger t where t.tgrelid = c.oid)
    ) end as mark,
    array(select p.xmin::text from pg_proc p where p.oid = any ($4::oid[]) order by p.oid) as called
from feedsvc.log_feeds f
join pg_class c on c.oid = to_regclass($2)
where f.dataset = $1
