-- $1 schemas, $2 tables, beside each other: what the planner knows of these tables, and each
-- column's type and statistics, without any value
SELECT c.oid AS id,
       n.nspname || '.' || c.relname AS name,
       format('%I.%I', n.nspname, c.relname) AS quoted,
       c.relkind::text AS kind,
       c.relispartition AS is_partition,
       c.reltuples::float8 AS rows,
       c.relpages AS pages,
       pg_relation_size(c.oid) AS bytes,
       CASE WHEN c.relpages > 0 THEN c.relallvisible::float8 / c.relpages ELSE 0 END AS visible,
       row_security_active(c.oid) AS is_secured,
       row_security_active(c.oid) OR NOT has_table_privilege(c.oid, 'SELECT') AS hides_statistics,
       coalesce(s.n_mod_since_analyze, 0)::bigint AS modified,
       coalesce(s.n_tup_upd + s.n_tup_del, 0)::float8 AS changed,
       ARRAY(SELECT DISTINCT a.attname::text
             FROM pg_policy p
             JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
                             AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
             WHERE p.polrelid = c.oid AND a.attnum > 0) AS policy_columns,
       a.attname::text AS plain,
       quote_ident(a.attname) AS column_name,
       -- As far as this login may see that.
       coalesce(a.attstattarget = 0, false)
           OR (NOT row_security_active(c.oid) AND c.reltuples > 0 AND st.attname IS NULL
               AND has_column_privilege(c.oid, a.attnum, 'SELECT')) AS is_unknown,
       format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS type,
       t.typtype = 'd' AS is_domain,
       e.typcategory::text AS category,
       st.null_frac::float8 AS null_fraction,
       st.n_distinct::float8 AS n_distinct,
       st.correlation::float8 AS correlation,
       coalesce(st.avg_width, 8) AS width,
       -- The least frequent element of an array, where the statistics have all elements. Behind
       -- their frequencies stand the least, the greatest and that of NULL; the last count of the
       -- histogram is the average number of elements.
       CASE WHEN e.typcategory = 'A' AND (
           SELECT sum(f) FROM unnest(trim_array(st.most_common_elem_freqs, 3)) AS f
       ) >= 0.99 * st.elem_count_histogram[cardinality(st.elem_count_histogram)]
       THEN st.most_common_elem_freqs[cardinality(st.most_common_elem_freqs) - 2]::float8 END
           AS least_element
FROM unnest($1::text[], $2::text[]) AS wanted (schema, name)
JOIN pg_namespace n ON n.nspname = wanted.schema
JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.name
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type e ON e.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
-- One column after the other: as a whole the view asks for the rights to each column that there is.
LEFT JOIN LATERAL (
    SELECT p.* FROM pg_stats p
    WHERE p.schemaname = n.nspname AND p.tablename = c.relname AND p.attname = a.attname
    ORDER BY p.inherited DESC LIMIT 1
) AS st ON true
ORDER BY name, a.attnum
