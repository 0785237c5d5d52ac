-- What the service's own login must not be: above row-level security, or an owner of anything.
select
    current_user::text as name,
    r.rolsuper as superuser,
    r.rolbypassrls as bypasses,
    exists (
        select from pg_shdepend d
        where d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid and d.deptype = 'o'
            and d.dbid in (0, (select oid from pg_database where datname = current_database()))
    ) as owns
from pg_roles r
where r.rolname = current_user
