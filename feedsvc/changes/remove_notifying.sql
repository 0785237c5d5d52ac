-- The triggers of 0.1, which notified: they have cost a busy table most of its rate.
DO $feedsvc$
DECLARE
    notifying regprocedure;
BEGIN
    FOR notifying IN
        SELECT p.oid FROM pg_catalog.pg_proc p
        WHERE p.pronamespace = pg_catalog.to_regnamespace('feedsvc')
            AND p.proname LIKE 'told\_%' AND p.pronargs = 0
            AND p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype
    LOOP
        EXECUTE pg_catalog.format('DROP FUNCTION %s CASCADE', notifying);
    END LOOP;
END
$feedsvc$;
