-- $1 the line's schema, $2 its group role, $3 its tables that hold no tenant's rows
WITH tables AS (
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, c.relname,
           c.relrowsecurity, c.relforcerowsecurity
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
), guarded AS (
    SELECT * FROM tables WHERE relname <> ALL ($3::text[])
)
SELECT format('role %s is missing', $2::text) AS finding
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = $2)
UNION ALL
-- What a failed CREATE INDEX CONCURRENTLY leaves: never read, always written.
SELECT format('index %s on %s is invalid: DROP INDEX it and build it again',
              i.indexrelid::regclass, t.name)
FROM pg_index i JOIN tables t ON t.oid = i.indrelid
WHERE NOT i.indisvalid
UNION ALL
SELECT format('constraint %s on %s is not validated', k.conname, t.name)
FROM pg_constraint k JOIN tables t ON t.oid = k.conrelid
WHERE NOT k.convalidated
UNION ALL
SELECT format('table %s has no row-level security', name) FROM guarded
WHERE NOT relrowsecurity
UNION ALL
SELECT format('table %s does not force row-level security on its owner', name) FROM guarded
WHERE relrowsecurity AND NOT relforcerowsecurity
UNION ALL
SELECT format('table %s has no policy for %s', name, $2::text) FROM guarded
WHERE NOT EXISTS (
    SELECT FROM pg_policy p JOIN pg_roles r ON r.oid = ANY (p.polroles)
    WHERE p.polrelid = guarded.oid AND r.rolname = $2
)
ORDER BY finding;
