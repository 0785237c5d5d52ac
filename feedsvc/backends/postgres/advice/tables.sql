-- $1 tables as schema.name: their size, and each column's type and statistics, without any value
SELECT n.nspname || '.' || c.relname AS table_name,
       format('%I.%I', n.nspname, c.relname) AS quoted,
       c.relkind::text AS kind,
       c.relispartition AS is_partition,
       greatest(c.reltuples, 0)::float8 AS rows,
       pg_relation_size(c.oid) AS bytes,
       CASE WHEN c.relpages > 0 THEN c.relallvisible::float8 / c.relpages ELSE 0 END AS visible,
       row_security_active(c.oid) OR NOT has_table_privilege(c.oid, 'SELECT') AS hides_statistics,
       coalesce(s.n_mod_since_analyze, 0)::float8 AS modified,
       coalesce(s.n_tup_upd + s.n_tup_del, 0)::float8 AS changed,
       coalesce(s.n_tup_ins, 0)::float8 AS inserted,
       quote_ident(a.attname) AS column_name,
       format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL) AS type,
       t.typtype = 'd' AS is_domain,
       e.typcategory::text AS category,
       st.null_frac::float8 AS null_fraction,
       st.n_distinct::float8 AS n_distinct,
       st.correlation::float8 AS correlation,
       st.avg_width AS width,
       -- The least frequent element of an array, where the statistics have all elements. Behind
       -- their frequencies stand the least, the greatest and that of NULL; the last count of the
       -- histogram is the average number of elements.
       CASE WHEN e.typcategory = 'A' AND (
           SELECT sum(f) FROM unnest(trim_array(st.most_common_elem_freqs, 3)) AS f
       ) >= 0.99 * st.elem_count_histogram[cardinality(st.elem_count_histogram)]
       THEN st.most_common_elem_freqs[cardinality(st.most_common_elem_freqs) - 2]::float8 END
           AS least_element
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_type e ON e.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
LEFT JOIN pg_stat_all_tables s ON s.relid = c.oid
LEFT JOIN pg_stats st ON (st.schemaname, st.tablename, st.attname) = (n.nspname, c.relname, a.attname)
WHERE n.nspname || '.' || c.relname = ANY ($1::text[])
ORDER BY table_name, a.attnum
