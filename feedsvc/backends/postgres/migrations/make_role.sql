-- Roles belong to the whole cluster: another database may make or drop this one meanwhile.
DO $$
DECLARE
    wanted constant text := current_setting('feedsvc.migrated_role');
    mark constant text := 'made by feedsvc migrate';
    found oid;
    marked boolean;
BEGIN
    FOR attempt IN 1..20 LOOP
        -- In one statement, so from one snapshot: a role that is dropped between two of them would
        -- look like one without the mark.
        SELECT oid, shobj_description(oid, 'pg_authid') IS NOT DISTINCT FROM mark
            INTO found, marked FROM pg_roles WHERE rolname = wanted;
        BEGIN
            IF found IS NULL THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            ELSIF NOT marked THEN
                RETURN;  -- an operator made it: it is theirs to keep
            END IF;
            -- COMMENT also locks the role until this transaction has granted to it, so that no
            -- other database's `down` can drop it in between.
            EXECUTE format('COMMENT ON ROLE %I IS %L', wanted, mark);
            RETURN;
        EXCEPTION
            WHEN duplicate_object OR unique_violation OR undefined_object THEN
                NULL;  -- made or dropped a moment ago: look again
            WHEN insufficient_privilege THEN
                IF found IS NOT NULL THEN
                    RETURN;  -- made by another migrator; granting to it needs no right over it
                END IF;
                RAISE EXCEPTION 'role % is missing and this login may not make it', wanted
                    USING ERRCODE = 'insufficient_privilege',
                          HINT = format('As a superuser: CREATE ROLE %I NOLOGIN', wanted);
        END;
    END LOOP;
    RAISE EXCEPTION 'role % is made and dropped over and over by other sessions', wanted;
END
$$;
