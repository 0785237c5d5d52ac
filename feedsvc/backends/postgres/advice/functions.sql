-- $1 names, with or without a schema: functions of users by these names, and what keeps SQL ones
-- from being inlined (inline_function in PostgreSQL's clauses.c)
SELECT n.nspname || '.' || p.proname AS name, p.proname AS short, l.lanname AS language,
       p.provolatile = 'v' AS is_volatile, p.prosecdef AS is_definer,
       p.proconfig IS NOT NULL AS has_settings, p.proisstrict AS is_strict, p.proretset AS is_set
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_language l ON l.oid = p.prolang
WHERE l.lanname IN ('sql', 'plpgsql') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND (p.proname = ANY ($1) OR n.nspname || '.' || p.proname = ANY ($1))
