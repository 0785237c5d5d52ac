-- Columns that have no index of their own, of the types that index_advisor tries.
SELECT n.nspname || '.' || t.relname AS table_name,
       format('%I.%I', n.nspname, t.relname) AS quoted,
       quote_ident(a.attname) AS column_name
FROM pg_class t
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE t.relkind IN ('r', 'm') AND t.relpersistence = 'p'
  AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
  AND a.atttypid IN (
      'bool'::regtype, '"char"'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype,
      'float4'::regtype, 'float8'::regtype, 'numeric'::regtype, 'text'::regtype,
      'bpchar'::regtype, 'varchar'::regtype, 'date'::regtype, 'time'::regtype,
      'timestamp'::regtype, 'timestamptz'::regtype, 'uuid'::regtype
  )
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e')
  AND NOT EXISTS (
      SELECT FROM pg_index i
      WHERE i.indrelid = t.oid AND i.indnatts = 1 AND i.indkey[0] = a.attnum
        AND i.indexprs IS NULL AND i.indpred IS NULL
  )
ORDER BY table_name, a.attnum
