-- What a datasets file leaves to the database: the schema of a relation that is named without one,
-- by the session's search path, and the columns of its primary key.
-- $1 text[]: schemas, null where there is none, $2 text[]: names, pairwise.
select
    w.ordinal::int as ordinal,
    format('%I.%I', n.nspname, c.relname) as relation,
    c.relkind in ('r', 'p') as is_table,
    array(
        select a.attname::text
        from pg_index i
        cross join lateral unnest(i.indkey::int2[]) with ordinality as k (attnum, position)
        join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
        where i.indrelid = c.oid and i.indisprimary and k.position <= i.indnkeyatts
        order by k.position
    ) as primary_key
from unnest($1::text[], $2::text[]) with ordinality as w (nspname, relname, ordinal)
join pg_class c on c.relname = w.relname and c.relkind in ('r', 'p', 'v', 'm', 'f')
join pg_namespace n on n.oid = c.relnamespace
where case when w.nspname is null then pg_table_is_visible(c.oid) else n.nspname = w.nspname end
