-- Whether this login may look after the change log and read it. No row where there is none.
SELECT has_schema_privilege(n.oid, 'USAGE')
    AND has_function_privilege(p.oid, 'EXECUTE')
    AND has_table_privilege(w.oid, 'SELECT') AS may
FROM pg_namespace AS n
JOIN pg_proc AS p ON p.pronamespace = n.oid AND p.proname = 'log_maintain'
JOIN pg_class AS w ON w.relnamespace = n.oid AND w.relname = 'log_windows'
WHERE n.nspname = 'feedsvc'
