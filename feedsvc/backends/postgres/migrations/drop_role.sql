DO $$
DECLARE
    unwanted constant text := current_setting('feedsvc.migrated_role');
BEGIN
    PERFORM FROM pg_roles
    WHERE rolname = unwanted
      AND shobj_description(oid, 'pg_authid') = 'made by feedsvc migrate';
    IF FOUND THEN
        EXECUTE format('DROP ROLE %I', unwanted);
    END IF;
EXCEPTION
    -- Another database still grants to it, or has dropped it first, or a login that isn't ours
    -- made it: in each case the role is no longer this database's to remove.
    WHEN dependent_objects_still_exist OR undefined_object OR insufficient_privilege THEN
        NULL;
END
$$;
