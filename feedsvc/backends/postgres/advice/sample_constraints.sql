-- $1 tables as schema.name: keys that the planner knows of, and row-level security
SELECT n.nspname || '.' || c.relname AS table_name,
       c.relrowsecurity AS is_secured,
       c.relforcerowsecurity AS is_forced,
       ARRAY(SELECT format('CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid))
             FROM pg_constraint k
             WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')
             ORDER BY k.contype, k.oid) AS keys,
       ARRAY(SELECT n.nspname || '.' || x.relname
             FROM pg_constraint k JOIN pg_class x ON x.oid = k.conindid
             WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')) AS key_indexes,
       ARRAY(SELECT format('%I AS %s FOR %s TO %s USING (%s)', p.polname,
                           CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                           CASE p.polcmd WHEN '*' THEN 'ALL' ELSE 'SELECT' END,
                           (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC'
                                              ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                            FROM unnest(p.polroles) AS r),
                           pg_get_expr(p.polqual, p.polrelid))
             FROM pg_policy p
             WHERE p.polrelid = c.oid AND p.polcmd IN ('*', 'r') AND p.polqual IS NOT NULL
            ) AS policies
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname || '.' || c.relname = ANY ($1::text[])
ORDER BY table_name
