-- What the upkeep views find, an object a row, and indexes that no query can use and none builds.
-- $1 float8: the seconds that a transaction may last.
select kind, object, detail
from feedsvc.upkeep()
where kind <> 'long transaction'
union all
select 'invalid index', format('%I.%I', u.schema, u.index), format('of %I', u."table")
from feedsvc.index_usage u
where not u.is_valid and not exists (
    -- Not by to_regclass, which fails without USAGE of the schema.
    select from pg_stat_progress_create_index p
    join pg_class c on c.oid = p.index_relid and c.relname = u.index
    join pg_namespace n on n.oid = c.relnamespace and n.nspname = u.schema
    where p.datname = current_database()
)
union all
select 'long transaction', format('process %s', t.pid), format('%s, %s', t.state, date_trunc('second', t.age))
from feedsvc.long_transactions t
where extract(epoch from t.age) > $1
order by 1, 2
limit 1000
