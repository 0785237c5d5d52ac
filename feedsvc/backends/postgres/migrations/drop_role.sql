-- It may be another one than `hold_role` has locked, made since: COMMENT locks that one. Without the
-- lock a DROP in another database could come between this one's two looks at the role, which is an
-- internal error of PostgreSQL's ("could not find tuple for role").
DO $$
DECLARE
    unwanted constant text := current_setting('feedsvc.migrated_role');
    mark constant text := 'made by feedsvc migrate';
BEGIN
    PERFORM FROM pg_roles WHERE rolname = unwanted AND shobj_description(oid, 'pg_authid') = mark;
    IF FOUND THEN
        EXECUTE format('COMMENT ON ROLE %I IS %L', unwanted, mark);
        EXECUTE format('DROP ROLE %I', unwanted);
    END IF;
EXCEPTION
    -- Another database still grants to it, or does so just now, or has dropped it first, or a login
    -- that isn't ours made it: in each case the role is no longer this database's to remove.
    WHEN dependent_objects_still_exist OR lock_not_available OR undefined_object
        OR insufficient_privilege THEN
        NULL;
END
$$;
