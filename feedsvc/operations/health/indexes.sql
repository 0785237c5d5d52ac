-- Indexes that no query can use, of the tables that the login reads. One that is being built is not
-- valid yet, either: then another session has the lock that building takes.
select
    format('%I.%I', n.nspname, i.relname) as name,
    format('%I.%I', n.nspname, t.relname) as of_table,
    -- What a REINDEX CONCURRENTLY that failed has left behind beside the index itself.
    exists (
        select from pg_index y
        join pg_class o on o.oid = y.indexrelid
        where y.indrelid = x.indrelid and i.relname ~ '_cc(new|old)[0-9]*$'
            and o.relname = regexp_replace(i.relname, '_cc(new|old)[0-9]*$', '')
    ) as left_over,
    exists (
        select from pg_locks l
        where l.locktype = 'relation' and l.relation = x.indrelid and l.granted
            and l.mode = 'ShareUpdateExclusiveLock' and l.pid <> pg_backend_pid()
            and l.database = (select d.oid from pg_database d where d.datname = current_database())
    ) as at_work
from pg_index x
join pg_class i on i.oid = x.indexrelid and i.relkind = 'i'
join pg_class t on t.oid = x.indrelid
join pg_namespace n on n.oid = t.relnamespace
where not x.indisvalid and n.nspname !~ '^pg_' and has_any_column_privilege(t.oid, 'select')
order by name
