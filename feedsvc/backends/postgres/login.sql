-- The service's own login, and every role that it could become by SET ROLE: what they may do that
-- row-level security does not bind. A superuser is a member of all roles, so it stands alone.
select
    me.rolname::text as login,
    r.rolname::text as role,
    r.rolsuper as superuser,
    r.rolbypassrls as bypasses,
    r.rolreplication as replicates,
    r.rolcreaterole as makes_roles,
    r.rolname in (
        'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'
    ) as beside,
    -- Also of a group: a table that it owns may be behind a dataset's view, and no policy binds a
    -- member of the owner there.
    exists (
        select from pg_shdepend d
        where d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid and d.deptype = 'o'
            -- Every login may make large objects, and no dataset reads one.
            and d.classid <> 'pg_largeobject'::regclass
            and d.dbid in (0, (select oid from pg_database where datname = current_database()))
    ) as owns
from pg_roles me
join pg_roles r on r.oid = me.oid or not me.rolsuper and pg_has_role(me.oid, r.oid, 'member')
where me.rolname = current_user
order by r.oid <> me.oid, r.rolname
