-- The triggers that write the change log, as they stand; `is_copy`: of a partition, made from its
-- parent's.
select
    n.nspname::text as schema,
    c.relname::text as name,
    t.tgname::text as trigger,
    t.tgenabled::text as enabled,
    t.tgparentid <> 0 as is_copy,
    p.proname::text as function,
    p.prosrc as body
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
join pg_proc p on p.oid = t.tgfoid
join pg_namespace pn on pn.oid = p.pronamespace
where pn.nspname = 'feedsvc' and p.proname like 'logs\_%'
