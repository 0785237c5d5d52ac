-- What decides on a feed's rows: its policies, and whether all of its changes are logged. $1 text: its
-- relation as SQL names it, $2 text[]: the columns that the log has of a former row,
-- $3 text[]: PostgreSQL's functions whose answer changes with the time.
with recursive relation as (
    select c.* from pg_class c where c.oid = to_regclass($1)
),
tree (oid) as (
    select oid from relation
    union
    select i.inhrelid from tree join pg_inherits i on i.inhparent = tree.oid
),
-- What logs the rows of each table, and whether it does at all.
member as (
    select
        c.oid,
        c.relkind,
        (
            select array_agg((t.tgname, t.xmin::text, t.tgenabled) order by t.tgname)
            from pg_trigger t where t.tgrelid = c.oid and t.tgname like 'feedsvc\_log\_%'
        ) as triggers,
        array(
            select distinct kind.bit
            from pg_trigger t
            join pg_proc p on p.oid = t.tgfoid and p.proname like 'logs\_%'
            cross join unnest(array[4, 8, 16, 32]) as kind (bit)
            where t.tgrelid = c.oid and t.tgname like 'feedsvc\_log\_%'
                and t.tgenabled in ('O', 'A') and t.tgtype::int & kind.bit <> 0
        ) as logged,
        c.relfilenode
    from tree join pg_class c on c.oid = tree.oid
),
every_policy as (
    select
        p.*,
        p.xmin::text as made_by,
        p.polcmd in ('r', '*') and exists (
            select from unnest(p.polroles) as granted (role)
            where granted.role = 0 or pg_has_role(granted.role, 'USAGE')
        ) as applies
    from pg_policy p
),
policy as (
    select
        p.oid, p.made_by, p.applies, p.polpermissive, p.polqual::text as tree,
        coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') as text
    from every_policy p join relation c on p.polrelid = c.oid
),
-- The functions that the policies call, the operators' included.
called as (
    select f.oid, f.xmin::text as made_by, f.provolatile, f.pronamespace, f.proname, l.lanname
    from (
        select distinct found.number[1]::oid as oid
        from policy p
        cross join lateral regexp_matches(
            p.tree, ':(?:funcid|opfuncid|winfnoid|aggfnoid) ([0-9]+)', 'g'
        ) as found (number)
        where p.applies
    ) as named
    join pg_proc f on f.oid = named.oid
    join pg_language l on l.oid = f.prolang
)
select
    c.relname::text as name,
    c.relkind::text as kind,
    (select count(*) from tree) > 1 as is_tree,
    -- Tables whose rows are not all logged.
    (
        select count(*)::int from member m
        where m.relkind <> 'p' and not (m.logged @> array[4, 8, 16])
    ) as unlogged,
    (
        select coalesce(json_object_agg(
            a.attname,
            format_type(a.atttypid, a.atttypmod) || coalesce(
                ' collate ' || (
                    select format('%I.%I', n.nspname, l.collname)
                    from pg_collation l join pg_namespace n on n.oid = l.collnamespace
                    where l.oid = a.attcollation
                ), ''
            )
        ), '{}')::text
        from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            and a.attname = any ($2::text[])
    ) as known,
    -- What lets a row be seen: one of the permissive policies, and all of the restrictive ones.
    case when c.relrowsecurity then concat_ws(
        ' and ',
        coalesce((
            select '(' || string_agg(p.text, ' or ' order by p.oid) || ')'
            from policy p where p.applies and p.polpermissive
        ), 'false'),
        (
            select string_agg('(' || p.text || ')', ' and ' order by p.oid)
            from policy p where p.applies and not p.polpermissive
        )
    ) else 'true' end as policy,
    -- Whether a policy can't be asked of a former row: it names the row as a whole, a system column,
    -- a column that the log has not got, or a volatile function.
    exists (
        select from policy p where p.applies and p.tree ~ ':varattno (0|-[0-9]+) '
    ) or exists (
        select from called where called.provolatile = 'v'
    ) or exists (
        select from every_policy p
        join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid and d.refobjsubid > 0
        join pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid
        where p.polrelid = c.oid and p.applies and a.attname <> all ($2::text[])
    ) as is_undecided,
    -- Policies whose answer changes with the time alone.
    exists (
        select from policy p where p.applies and p.tree ~ '\{SQLVALUEFUNCTION :op [0-8] '
    ) or exists (
        select from called where called.pronamespace = 'pg_catalog'::regnamespace
            and called.proname = any ($3::text[]) and called.provolatile <> 'i'
    ) as asks_the_time,
    -- Functions that may read tables of which the log knows nothing.
    array(
        select called.proname::text from called
        where called.provolatile <> 'i' and called.lanname not in ('c', 'internal') order by 1
    ) as functions,
    concat_ws(
        ' ', c.relowner, c.relrowsecurity, c.relforcerowsecurity,
        (select array_agg((p.oid, p.made_by, p.applies) order by p.oid) from policy p),
        (select array_agg((called.oid, called.made_by) order by called.oid) from called where called.oid >= 16384)
    ) as rights,
    concat_ws(
        ' ', c.oid,
        (
            select array_agg((a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation) order by a.attnum)
            from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        ),
        -- A partition that is new has no trigger for TRUNCATE yet, which gives it another file.
        (
            select array_agg((
                m.oid, m.triggers, case when not (m.logged @> array[32]) then m.relfilenode end
            ) order by m.oid)
            from member m
        )
    ) as schema,
    array(select called.oid from called where called.oid >= 16384 order by 1) as called,
    array(select called.made_by from called where called.oid >= 16384 order by called.oid) as called_by,
    -- The transactions that made what the feed is: the lower 32 bits of their numbers.
    array(
        select c.xmin::text::bigint
        union select a.xmin::text::bigint from pg_attribute a where a.attrelid = c.oid and a.attnum > 0
        union select t.xmin::text::bigint from pg_trigger t
            where t.tgrelid = c.oid and t.tgname like 'feedsvc\_log\_%'
        union select called.made_by::bigint from called where called.oid >= 16384
    ) as made_by,
    -- Whether a policy reads other relations.
    exists (
        select from policy p
        join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
            and d.refclassid = 'pg_class'::regclass and d.refobjid <> c.oid
        where p.applies
    ) as reads_others
from (select c.*, c.xmin from pg_class c where c.oid = to_regclass($1)) as c
