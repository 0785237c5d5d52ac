-- The triggers that tell of changes, as they stand.
select
    n.nspname::text as schema,
    c.relname::text as name,
    t.tgname::text as trigger,
    t.tgtype::int as type,
    t.tgenabled::text as enabled,
    coalesce(t.tgoldtable::text, '') as old_rows,
    coalesce(t.tgnewtable::text, '') as new_rows,
    p.proname::text as function,
    p.prosrc as body
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
join pg_proc p on p.oid = t.tgfoid
join pg_namespace pn on pn.oid = p.pronamespace
where not t.tgisinternal and pn.nspname = 'feedsvc' and p.proname like 'told\_%'
