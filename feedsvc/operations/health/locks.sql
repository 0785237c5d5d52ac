-- Which sessions the service's own ones wait for, and those wait for in their turn. Who waits, who is
-- in the way, for which relation, with which modes, and for how long: nothing of what they run.
with recursive waits (pid, behind) as (
    select a.pid, b.pid
    from pg_stat_activity a, unnest(pg_blocking_pids(a.pid)) as b (pid)
    where a.usename = current_user and a.datname = current_database()
        and exists (select from pg_locks l where l.pid = a.pid and not l.granted)
    union
    select w.behind, b.pid
    from waits w, unnest(pg_blocking_pids(w.behind)) as b (pid)
)
select
    w.pid as waiting,
    w.behind as blocking,
    l.relation::regclass::text as relation,
    l.mode as wanted,
    (
        select string_agg(distinct h.mode, ', ') from pg_locks h
        where h.pid = w.behind and h.granted and h.relation = l.relation
            and h.database = l.database
    ) as held,
    coalesce(extract(epoch from clock_timestamp() - l.waitstart), 0)::float8 as seconds
from waits w
join pg_locks l on l.pid = w.pid and not l.granted
order by seconds desc, waiting, blocking
