-- Each relation that a query of some relations reads, with the role that reads it: the relation
-- itself, what is behind a view, and what the policies in force ask. A view reads as its owner
-- unless it has security_invoker, which then also holds within a view that has not.
-- $1 text[]: their schemas, $2 text[]: their names, pairwise.
with recursive wanted as (
    select w.ordinal, c.oid
    from unnest($1::text[], $2::text[]) with ordinality as w (nspname, relname, ordinal)
    join pg_namespace n on n.nspname = w.nspname
    join pg_class c on c.relnamespace = n.oid and c.relname = w.relname
),
roles as (
    select r.oid, r.rolname, r.rolsuper or r.rolbypassrls as is_above from pg_roles r
),
me as (
    select r.oid from roles r where r.rolname = current_user
),
-- Whether row-level security holds a role, as row_security_active() says of the current one.
reached (ordinal, oid, reader, via, is_held) as (
    select w.ordinal, w.oid, me.oid, null::oid, c.relrowsecurity and not r.is_above
        and (c.relforcerowsecurity or not pg_has_role(me.oid, c.relowner, 'usage'))
    from wanted w
    cross join me
    join roles r on r.oid = me.oid
    join pg_class c on c.oid = w.oid
    union
    select r.ordinal, d.refobjid, next.reader, r.oid, c.relrowsecurity and not role.is_above
        and (c.relforcerowsecurity or not pg_has_role(next.reader, c.relowner, 'usage'))
    from reached r
    cross join me
    join pg_class v on v.oid = r.oid
    cross join lateral (
        select 'pg_rewrite'::regclass as class, rule.oid, case when exists (
            select from pg_options_to_table(v.reloptions) as o
            where o.option_name = 'security_invoker' and o.option_value::boolean
        ) then me.oid else v.relowner end as reader
        from pg_rewrite rule
        where v.relkind = 'v' and rule.ev_class = v.oid and rule.ev_type = '1'
        union all
        select 'pg_policy'::regclass, p.oid, r.reader
        from pg_policy p
        where r.is_held and p.polrelid = v.oid and p.polcmd in ('r', '*') and exists (
            select from unnest(p.polroles) as held (oid)
            where held.oid = 0 or pg_has_role(r.reader, held.oid, 'usage')
        )
    ) as next
    join pg_depend d
        on d.classid = next.class and d.objid = next.oid
        and d.refclassid = 'pg_class'::regclass and d.refobjid <> r.oid
    join pg_class c on c.oid = d.refobjid and c.relkind in ('r', 'p', 'v', 'm', 'f')
    join roles role on role.oid = next.reader
),
judged as (
    select
        r.ordinal,
        r.via is null as is_itself,
        r.oid,
        r.reader,
        r.via is not null or has_schema_privilege(r.reader, c.relnamespace, 'usage') as may_enter,
        case
            when r.via is null then has_any_column_privilege(r.reader, r.oid, 'select')
            else has_table_privilege(r.reader, r.oid, 'select')
                or coalesce(bool_and(has_column_privilege(r.reader, r.oid, used.attnum, 'select')), false)
        end as may_read,
        -- Without a permissive policy for the reader there are no rows, and no error either.
        r.is_held and not exists (
            select from pg_policy p
            where p.polrelid = r.oid and p.polpermissive and p.polcmd in ('r', '*') and exists (
                select from unnest(p.polroles) as held (oid)
                where held.oid = 0 or pg_has_role(r.reader, held.oid, 'usage')
            )
        ) as is_always_empty
    from reached r
    join pg_class c on c.oid = r.oid
    left join lateral (
        select d.refobjsubid::smallint as attnum
        from pg_depend d
        left join pg_rewrite rule on d.classid = 'pg_rewrite'::regclass and rule.oid = d.objid
        left join pg_policy policy on d.classid = 'pg_policy'::regclass and policy.oid = d.objid
        where d.refclassid = 'pg_class'::regclass and d.refobjid = r.oid and d.refobjsubid > 0
            and r.via in (rule.ev_class, policy.polrelid)
    ) as used on true
    group by r.ordinal, r.via, r.oid, r.reader, r.is_held, c.relnamespace
)
select
    j.ordinal::int as ordinal,
    j.is_itself,
    format('%I.%I', n.nspname, c.relname) as name,
    quote_ident(n.nspname) as schema,
    quote_ident(role.rolname) as reader,
    j.reader = me.oid as as_login,
    bool_and(j.may_read) as may_read,
    bool_and(j.may_enter) as may_enter,
    bool_or(j.is_always_empty) as is_always_empty,
    bool_and(c.relispopulated) as is_filled
from judged j
cross join me
join pg_class c on c.oid = j.oid
join pg_namespace n on n.oid = c.relnamespace
join roles role on role.oid = j.reader
group by j.ordinal, j.is_itself, n.nspname, c.relname, role.rolname, j.reader, me.oid
order by j.ordinal, not j.is_itself, name, reader
