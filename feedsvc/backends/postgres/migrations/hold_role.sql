-- Locks the role until this transaction ends, before it takes back what it has granted: of two
-- databases that did so at once, each would see the other's grants still, and neither drop the role.
DO $$
DECLARE
    unwanted constant text := current_setting('feedsvc.migrated_role');
    mark constant text := 'made by feedsvc migrate';
BEGIN
    PERFORM FROM pg_roles WHERE rolname = unwanted AND shobj_description(oid, 'pg_authid') = mark;
    IF FOUND THEN
        EXECUTE format('COMMENT ON ROLE %I IS %L', unwanted, mark);
    END IF;
EXCEPTION
    -- Dropped a moment ago, or not ours to drop.
    WHEN undefined_object OR insufficient_privilege THEN
        NULL;
END
$$;
