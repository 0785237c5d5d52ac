-- What row-level security does for some relations, one row for each relation that a query of theirs
-- reaches: the relation itself, and through a view whatever is behind it.
-- $1 text[]: their schemas, $2 text[]: their names, $3 text[]: their tenant columns, pairwise.
with recursive wanted as (
    select w.ordinal, c.oid, w.tenant
    from unnest($1::text[], $2::text[], $3::text[])
        with ordinality as w (nspname, relname, tenant, ordinal)
    join pg_namespace n on n.nspname = w.nspname
    join pg_class c on c.relnamespace = n.oid and c.relname = w.relname
),
-- A materialized view is not looked behind: it holds rows of its own, and reads nothing.
reached (ordinal, oid) as (
    select w.ordinal, w.oid from wanted w
    union
    select r.ordinal, d.refobjid
    from reached r
    join pg_class v on v.oid = r.oid and v.relkind = 'v'
    -- A rule for SELECT is what the view reads; others say where it writes.
    join pg_rewrite rule on rule.ev_class = v.oid and rule.ev_type = '1'
    join pg_depend d
        on d.classid = 'pg_rewrite'::regclass and d.objid = rule.oid
        and d.refclassid = 'pg_class'::regclass
),
-- Policies that apply when the login reads. A restrictive one that is itself true restricts nothing.
policies as (
    select
        p.polrelid,
        bool_or(p.polpermissive) as lets_in,
        bool_or(p.polpermissive and pg_get_expr(p.polqual, p.polrelid) = 'true')
            and not bool_or(
                not p.polpermissive and pg_get_expr(p.polqual, p.polrelid) is distinct from 'true'
            ) as lets_all_in
    from pg_policy p
    where p.polcmd in ('r', '*') and exists (
        select from unnest(p.polroles) as r (oid)
        where r.oid = 0 or pg_has_role(r.oid, 'usage')
    )
    group by p.polrelid
)
select
    w.ordinal::int as ordinal,
    c.oid = w.oid as asked_for,
    format('%I.%I', n.nspname, c.relname) as name,
    c.relkind::text as kind,
    coalesce((
        select o.option_value::boolean
        from pg_options_to_table(c.reloptions) as o
        where o.option_name = 'security_invoker'
    ), false) as as_its_reader,
    coalesce((
        select o.option_value::boolean
        from pg_options_to_table(c.reloptions) as o
        where o.option_name = 'security_barrier'
    ), false) as is_barrier,
    -- The call, and not the name alone, which a constant or a column may have as well.
    c.relkind = 'v'
        and pg_get_viewdef(c.oid) ~* 'current_setting\(''feedsvc\.tenant''' as asks_who_reads,
    c.relrowsecurity as enabled,
    coalesce(policies.lets_in, false) as has_policy,
    coalesce(policies.lets_all_in, false) as lets_all_in,
    exists (
        select from pg_attribute a
        where a.attrelid = c.oid and a.attname = w.tenant and a.attnum > 0 and not a.attisdropped
    ) as has_tenant
from reached r
join wanted w on w.ordinal = r.ordinal
join pg_class c on c.oid = r.oid and c.relkind in ('r', 'p', 'v', 'm', 'f')
join pg_namespace n on n.oid = c.relnamespace
left join policies on policies.polrelid = c.oid
order by w.ordinal, c.oid <> w.oid, name
