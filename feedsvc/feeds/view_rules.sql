-- What decides on the rows of a view, and whether all of its changes are logged. $1 text: the view as
-- SQL names it, $2 text[]: PostgreSQL's functions whose answer changes with the time.
with recursive
-- What a view's query, or a policy that decides what is read, depends on.
depends (oid, on_oid) as (
    select e.ev_class, d.refobjid
    from pg_rewrite e
    join pg_class c on c.oid = e.ev_class and c.relkind = 'v' and e.ev_type = '1'
    join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = e.oid
        and d.refclassid = 'pg_class'::regclass
    union
    select p.polrelid, d.refobjid
    from pg_policy p
    join pg_class c on c.oid = p.polrelid and c.relrowsecurity and p.polcmd in ('r', '*')
    join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
        and d.refclassid = 'pg_class'::regclass
),
reached (oid) as (
    select to_regclass($1)::oid
    union
    select further.oid
    from reached r
    cross join lateral (
        select d.on_oid as oid from depends d where d.oid = r.oid
        union all
        select i.inhrelid from pg_inherits i where i.inhparent = r.oid
    ) as further
),
-- The rights by which a view reads: those of the login, or of its owner.
view as (
    select
        c.oid, c.relname, c.relowner, c.reloptions, c.xmin::text as made_by, own.is_invoker,
        case when own.is_invoker then current_user::regrole::oid else c.relowner end as reader
    from pg_class c
    cross join lateral (
        select coalesce((
            select o.option_value::bool from pg_options_to_table(c.reloptions) o
            where o.option_name = 'security_invoker'
        ), false) as is_invoker
    ) as own
    where c.oid = to_regclass($1)
),
-- What logs the rows of each table, and whether it does at all.
member as (
    select
        c.*,
        c.xmin::text as made_by,
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
        ) as logged
    from reached r join pg_class c on c.oid = r.oid and c.relkind in ('r', 'p', 'v', 'm', 'f')
),
-- Policies of all tables; those that bind the view's reader apply.
policy as (
    select
        p.oid, p.xmin::text as made_by, p.polrelid, p.polpermissive, p.polqual::text as tree,
        coalesce(pg_get_expr(p.polqual, p.polrelid), 'true') as text,
        exists (
            select from unnest(p.polroles) as granted (role)
            where granted.role = 0 or pg_has_role(v.reader, granted.role, 'USAGE')
        ) as applies
    from pg_policy p
    join member m on m.oid = p.polrelid and m.relrowsecurity and p.polcmd in ('r', '*')
    cross join view v
),
bound as (
    select
        m.oid,
        m.relrowsecurity and not r.rolsuper and not r.rolbypassrls
            and (m.relforcerowsecurity or not pg_has_role(v.reader, m.relowner, 'USAGE')) as is_bound
    from member m cross join view v join pg_roles r on r.oid = v.reader
),
rule as (
    select m.oid as view, e.oid, e.xmin::text as made_by, e.ev_action::text as tree
    from member m join pg_rewrite e on e.ev_class = m.oid and e.ev_type = '1' and m.relkind = 'v'
),
reading as (
    select tree from rule union all select tree from policy where applies
),
-- The functions that they call, the operators' included.
called as (
    select f.oid, f.xmin::text as made_by, f.provolatile, f.pronamespace, f.proname, l.lanname
    from (
        select distinct found.number[1]::oid as oid
        from reading
        cross join lateral regexp_matches(
            reading.tree, ':(?:funcid|opfuncid|winfnoid|aggfnoid) ([0-9]+)', 'g'
        ) as found (number)
    ) as named
    join pg_proc f on f.oid = named.oid
    join pg_language l on l.oid = f.prolang
)
select
    v.relname::text as name,
    rtrim(pg_get_viewdef(v.oid), ';') as text,
    (select r.tree from rule r where r.view = v.oid) as query,
    (
        select coalesce(json_object_agg(a.attnum, a.attname), '{}')::text
        from pg_attribute a where a.attrelid = v.oid and a.attnum > 0 and not a.attisdropped
    ) as columns,
    v.is_invoker,
    -- The tables that the view itself names, each as its text has it.
    (
        select coalesce(json_agg(json_build_object(
            'oid', m.oid::int8,
            'table', format('%s.%s', n.nspname, m.relname),
            'quoted', format('%I.%I', n.nspname, m.relname),
            'printed', m.oid::regclass::text,
            'bare', quote_ident(m.relname),
            'is_table', m.relkind in ('r', 'p'),
            'places', (
                select count(*) from reading
                cross join lateral regexp_matches(
                    reading.tree, ':rtekind 0 :relid ' || m.oid::int8 || ' ', 'g'
                )
            ),
            'can_be_read', v.is_invoker and has_table_privilege(m.oid, 'SELECT'),
            'columns', (
                select json_object_agg(a.attnum, json_build_object(
                    'name', a.attname,
                    'kind', b.typname,
                    'type', format_type(a.atttypid, a.atttypmod) || coalesce(
                        ' collate ' || (
                            select format('%I.%I', ln.nspname, l.collname)
                            from pg_collation l join pg_namespace ln on ln.oid = l.collnamespace
                            where l.oid = a.attcollation
                        ), ''
                    )
                ))
                from pg_attribute a
                join pg_type t on t.oid = a.atttypid
                join pg_type b on b.oid = case when t.typtype = 'd' then t.typbasetype else t.oid end
                where a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped
            ),
            'is_undecided', exists (
                select from policy p
                where p.polrelid = m.oid and p.applies and p.tree ~ ':varattno (0|-[0-9]+) '
            ),
            'policy_columns', array(
                select distinct a.attname::text
                from policy p
                join pg_depend d on d.classid = 'pg_policy'::regclass and d.objid = p.oid
                    and d.refclassid = 'pg_class'::regclass and d.refobjid = m.oid
                join pg_attribute a on a.attrelid = m.oid and a.attnum = d.refobjsubid
                where p.polrelid = m.oid and p.applies
            ),
            -- What lets a row be seen: one of the permissive policies, and all of the restrictive ones.
            'policy', case when b.is_bound then concat_ws(
                ' and ',
                coalesce((
                    select '(' || string_agg(p.text, ' or ' order by p.oid) || ')'
                    from policy p where p.polrelid = m.oid and p.applies and p.polpermissive
                ), 'false'),
                (
                    select string_agg('(' || p.text || ')', ' and ' order by p.oid)
                    from policy p where p.polrelid = m.oid and p.applies and not p.polpermissive
                )
            ) else 'true' end
        )), '[]')::text
        from member m
        join bound b on b.oid = m.oid
        join pg_namespace n on n.oid = m.relnamespace
        where m.oid in (select d.on_oid from depends d where d.oid = v.oid) and m.oid <> v.oid
    ) as tables,
    exists (select from member m join pg_inherits i on m.oid in (i.inhparent, i.inhrelid)) as is_tree,
    -- Tables whose rows are not all logged.
    (
        select count(*)::int from member m
        where m.relkind in ('m', 'f') or m.relkind = 'r' and not (m.logged @> array[4, 8, 16])
    ) as unlogged,
    exists (select from called where called.provolatile = 'v') as is_volatile,
    exists (select from reading where reading.tree ~ '\{SQLVALUEFUNCTION :op [0-8] ') or exists (
        select from called where called.pronamespace = 'pg_catalog'::regnamespace
            and called.proname = any ($2::text[]) and called.provolatile <> 'i'
    ) as asks_the_time,
    -- Functions that may read tables of which the log knows nothing.
    array(
        select called.proname::text from called
        where called.provolatile <> 'i' and called.lanname not in ('c', 'internal') order by 1
    ) as functions,
    concat_ws(
        ' ', v.relowner, v.reloptions, v.reader,
        (select array_agg((m.oid, m.relowner, m.relrowsecurity, m.relforcerowsecurity) order by m.oid) from member m),
        (select array_agg((p.oid, p.made_by, p.applies) order by p.oid) from policy p),
        (select array_agg((called.oid, called.made_by) order by called.oid) from called where called.oid >= 16384)
    ) as rights,
    concat_ws(
        ' ', v.oid,
        (select array_agg((r.oid, r.made_by) order by r.oid) from rule r),
        (
            select array_agg((a.attrelid, a.attnum, a.attname, a.atttypid, a.atttypmod, a.attcollation)
                order by a.attrelid, a.attnum)
            from member m join pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped
        ),
        -- A partition that is new has no trigger for TRUNCATE yet, which gives it another file.
        (
            select array_agg((
                m.oid, m.triggers, case when not (m.logged @> array[32]) then m.relfilenode end
            ) order by m.oid)
            from member m
        )
    ) as schema,
    array(select m.oid from member m order by 1) as behind,
    array(select called.oid from called where called.oid >= 16384 order by 1) as called,
    array(select called.made_by from called where called.oid >= 16384 order by called.oid) as called_by,
    -- The transactions that made what the feed is: the lower 32 bits of their numbers.
    array(
        select m.made_by::bigint from member m
        union select r.made_by::bigint from rule r
        union select a.xmin::text::bigint from member m join pg_attribute a on a.attrelid = m.oid and a.attnum > 0
        union select t.xmin::text::bigint from member m join pg_trigger t on t.tgrelid = m.oid
            and t.tgname like 'feedsvc\_log\_%'
        union select called.made_by::bigint from called where called.oid >= 16384
    ) as made_by
from view v
