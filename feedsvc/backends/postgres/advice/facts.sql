-- $1 schemas, $2 tables, beside each other: what the planner knows of these tables
SELECT n.nspname || '.' || c.relname AS relation,
       c.oid AS id,
       c.reltuples::float8 AS rows,
       c.relpages AS pages,
       c.relallvisible AS visible_pages,
       pg_relation_size(c.oid) AS bytes,
       row_security_active(c.oid) AS is_secured,
       coalesce(s.n_mod_since_analyze, 0)::bigint AS modified,
       greatest(s.last_analyze, s.last_autoanalyze) IS NOT NULL AS is_analyzed,
       -- Columns without statistics, as far as this login may see that.
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND (a.attstattarget = 0
                    OR (NOT row_security_active(c.oid) AND c.reltuples > 0
                        AND has_column_privilege(c.oid, a.attnum, 'SELECT')
                        AND NOT EXISTS (SELECT FROM pg_stats p
                                        WHERE p.schemaname = n.nspname AND p.tablename = c.relname
                                          AND p.attname = a.attname)))) AS unknown_columns,
       ARRAY(SELECT DISTINCT a.attname::text
             FROM pg_policy p
             JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                             AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
             WHERE p.polrelid = c.oid AND a.attnum > 0) AS policy_columns
FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
JOIN pg_namespace n ON n.nspname = wanted.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
