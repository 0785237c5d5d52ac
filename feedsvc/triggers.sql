-- The tables that some relations' rows come from: themselves, what is behind a view, and every
-- partition or child. $1 text[]: schemas, $2 text[]: names, pairwise.
with recursive wanted as (
    select w.ordinal, c.oid
    from unnest($1::text[], $2::text[]) with ordinality as w (nspname, relname, ordinal)
    join pg_namespace n on n.nspname = w.nspname
    join pg_class c on c.relnamespace = n.oid and c.relname = w.relname
),
-- `origin` is the table as it was reached, of which the others are parts.
reached (ordinal, oid, origin) as (
    select ordinal, oid, oid from wanted
    union
    select r.ordinal, further.oid, case when further.is_part then r.origin else further.oid end
    from reached r
    join pg_class c on c.oid = r.oid
    cross join lateral (
        select d.refobjid as oid, false as is_part
        from pg_rewrite rule
        join pg_depend d
            on d.classid = 'pg_rewrite'::regclass and d.objid = rule.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid <> c.oid
        where c.relkind = 'v' and rule.ev_class = c.oid and rule.ev_type = '1'
        union all
        select i.inhrelid, true from pg_inherits i where i.inhparent = c.oid
    ) as further
)
select
    r.ordinal::int as ordinal,
    n.nspname::text as schema,
    c.relname::text as name,
    c.relkind::text as kind,
    r.origin = w.oid as is_itself,
    format('%s.%s', onn.nspname, o.relname) as origin,
    array(
        select a.attname::text from pg_attribute a
        where a.attrelid = r.origin and a.attnum > 0 and not a.attisdropped
    ) as columns
from reached r
join wanted w on w.ordinal = r.ordinal
join pg_class c on c.oid = r.oid
join pg_namespace n on n.oid = c.relnamespace
join pg_class o on o.oid = r.origin
join pg_namespace onn on onn.oid = o.relnamespace
where c.relkind in ('r', 'p', 'm', 'f')
order by r.ordinal, schema, name
