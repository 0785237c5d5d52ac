-- Whether views can be refreshed beside their readers. $1 text[]: the views, as SQL names them.
-- `may` is null before `feedsvc migrate up`.
select
    w.relation,
    c.relkind::text as kind,
    exists (
        select from pg_index i
        where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null
            and i.indexprs is null
    ) as is_unique,
    -- The owner of feedsvc.refresh acts as the view's owner, or has its MAINTAIN (PostgreSQL 17).
    (
        select pg_has_role(f.proowner, c.relowner, 'usage') or exists (
            select from aclexplode(c.relacl) as a
            where a.privilege_type = 'MAINTAIN' and pg_has_role(f.proowner, a.grantee, 'usage')
        )
        from pg_proc f where f.oid = to_regprocedure('feedsvc.refresh(text)')
    ) as may,
    (select r.rolname from pg_roles r where r.oid = c.relowner) as owner
from unnest($1::text[]) with ordinality as w (relation, ordinal)
left join lateral (
    -- Not by to_regclass, which fails without USAGE of the schema.
    select c.oid, c.relkind, c.relowner, c.relacl
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where array[n.nspname, c.relname]::text[] = parse_ident(w.relation)
) as c on true
order by w.ordinal
