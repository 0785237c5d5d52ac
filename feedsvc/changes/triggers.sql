-- What some relations' rows come from: themselves, what is behind a view or a policy, every partition
-- and child, and what these are partitions or children of, for who writes to that fires its triggers
-- alone. $1 text[]: schemas, $2 text[]: names, pairwise. One row for each, and one for each function
-- that a view or a policy calls and whose reads can't be known.
with recursive wanted as (
    select w.ordinal, c.oid
    from unnest($1::text[], $2::text[]) with ordinality as w (nspname, relname, ordinal)
    join pg_namespace n on n.nspname = w.nspname
    join pg_class c on c.relnamespace = n.oid and c.relname = w.relname
),
-- What a view's query, or a policy that decides what is read, depends on.
depends (oid, class, on_oid) as (
    select rule.ev_class, d.refclassid, d.refobjid
    from pg_rewrite rule
    join pg_class c on c.oid = rule.ev_class and c.relkind = 'v' and rule.ev_type = '1'
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = rule.oid
    union
    select p.polrelid, d.refclassid, d.refobjid
    from pg_policy p
    join pg_class c on c.oid = p.polrelid and c.relrowsecurity and p.polcmd in ('r', '*')
    join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
),
-- `origin` is the table as it was reached, of which the others are parts, or which is part of those
-- that are `above` it.
reached (ordinal, oid, origin, above) as (
    select ordinal, oid, oid, false from wanted
    union
    select
        r.ordinal,
        further.oid,
        case when further.is_origin then further.oid else r.origin end,
        further.above
    from reached r
    cross join lateral (
        select d.on_oid as oid, true as is_origin, false as above
        from depends d
        where d.oid = r.oid and r.oid = r.origin and not r.above
            and d.class = 'pg_class'::regclass and d.on_oid <> r.oid
        union all
        select i.inhrelid, false, false
        from pg_inherits i where i.inhparent = r.oid and not r.above
        union all
        select i.inhparent, false, true from pg_inherits i where i.inhrelid = r.oid
    ) as further
)
select
    r.ordinal::int as ordinal,
    n.nspname::text as schema,
    c.relname::text as name,
    c.relkind::text as kind,
    r.origin = w.oid as is_itself,
    r.above,
    format('%s.%s', onn.nspname, o.relname) as origin,
    (
        select coalesce(json_object_agg(a.attname, json_build_object(
            'kind', b.typname,
            'category', b.typcategory,
            'one_text', coalesce(l.collisdeterministic, true),
            'nullable', not a.attnotnull
        ) order by a.attnum), '{}')::text
        from pg_attribute a
        join pg_type t on t.oid = a.atttypid
        join pg_type b on b.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end
        left join pg_collation l on l.oid = a.attcollation
        where a.attrelid = case when r.above then r.oid else r.origin end
            and a.attnum > 0 and not a.attisdropped
    ) as columns,
    -- The columns' names by their numbers.
    (
        select coalesce(json_object_agg(a.attnum, a.attname), '{}')::text
        from pg_attribute a where a.attrelid = r.origin and a.attnum > 0 and not a.attisdropped
    ) as numbers,
    r.origin::int8 as origin_oid,
    -- What a view selects.
    case when c.relkind = 'v' then (
        select e.ev_action::text from pg_rewrite e where e.ev_class = c.oid and e.ev_type = '1'
    ) end as query,
    -- The columns that the views, through which it was reached, read of it; all where a row is read as
    -- a whole.
    case when r.origin <> w.oid then array(
        select distinct a.attname::text
        from reached v
        join pg_rewrite e on e.ev_class = v.oid and v.ordinal = r.ordinal
        join pg_attribute a on a.attrelid = r.origin and a.attnum > 0 and not a.attisdropped
        where e.ev_action::text ~ ':varattno 0 ' or exists (
            select from pg_depend d
            where d.classid = 'pg_rewrite'::regclass and d.objid = e.oid
                and d.refclassid = 'pg_class'::regclass and d.refobjid = r.origin
                and d.refobjsubid = a.attnum
        )
        order by 1
    ) end as read_columns,
    -- In how many places the views and the policies read it.
    case when r.origin <> w.oid then (
        select count(*)::int
        from (
            select distinct e.oid, e.ev_action::text as tree
            from reached v join pg_rewrite e on e.ev_class = v.oid where v.ordinal = r.ordinal
            union
            select distinct p.oid, p.polqual::text
            from reached v join pg_policy p on p.polrelid = v.oid where v.ordinal = r.ordinal
        ) as reading
        cross join lateral regexp_matches(
            reading.tree, ':rtekind 0 :relid ' || r.origin::int8 || ' ', 'g'
        )
    ) end as places,
    c.relispartition as is_partition,
    exists (select from pg_inherits i where c.oid in (i.inhrelid, i.inhparent)) as in_tree,
    -- The columns that a policy for SELECT names decide who sees a row; one that names the row as a
    -- whole names all of them.
    array(
        select distinct a.attname::text
        from pg_policy p
        join pg_attribute a on a.attrelid = p.polrelid and a.attnum > 0 and not a.attisdropped
        where p.polrelid = c.oid and p.polcmd in ('r', '*') and c.relrowsecurity
            and (p.polqual::text ~ ':varattno 0 ' or exists (
                select from pg_depend d
                where d.classid = 'pg_policy'::regclass and d.objid = p.oid
                    and d.refclassid = 'pg_class'::regclass and d.refobjid = p.polrelid
                    and d.refobjsubid = a.attnum
            ))
        order by 1
    ) as policy_columns,
    -- Whatever changes what the rows are, and fires no trigger.
    concat_ws(
        ' ', c.oid, c.relowner, c.relrowsecurity, c.relforcerowsecurity, c.reloptions, c.relacl,
        (select array_agg((p.oid, p.xmin::text) order by p.oid) from pg_policy p where p.polrelid = c.oid),
        (select array_agg((e.oid, e.xmin::text) order by e.oid) from pg_rewrite e where e.ev_class = c.oid),
        (
            select array_agg((t.oid, t.xmin::text) order by t.oid)
            from pg_trigger t where t.tgrelid = c.oid and t.tgname like any (array['feedsvc\_told\_%', 'feedsvc\_log\_%'])
        )
    ) as state
from reached r
join wanted w on w.ordinal = r.ordinal
join pg_class c on c.oid = r.oid
join pg_namespace n on n.oid = c.relnamespace
join pg_class o on o.oid = r.origin
join pg_namespace onn on onn.oid = o.relnamespace
where c.relkind in ('r', 'p', 'm', 'f', 'v')
    -- What is both part of what was reached and above it is written to in either way.
    and not (r.above and exists (
        select from reached other
        where other.ordinal = r.ordinal and other.oid = r.oid and not other.above
    ))
union all
select
    r.ordinal::int, fn.nspname, f.proname, 'function', false, false, '', '{}', '{}', 0, null, null,
    null, false, false, '{}',
    concat_ws(' ', f.oid, f.xmin)
from reached r
join depends d on d.oid = r.oid and d.class = 'pg_proc'::regclass and not r.above
join pg_proc f on f.oid = d.on_oid and f.provolatile <> 'i'
join pg_language l on l.oid = f.prolang and l.lanname not in ('c', 'internal')
join pg_namespace fn on fn.oid = f.pronamespace
order by 1, 2, 3, 4, 6, 7
