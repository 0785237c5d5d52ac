-- $1 an index on an empty copy of a table, $2 that table: what an estimate of its size needs
SELECT a.amname AS method,
       greatest(t.reltuples, 0)::float8 AS rows,
       -- pg_relation_size counts what was written since the last ANALYZE too.
       pg_relation_size(t.oid)::float8 AS table_bytes,
       pg_get_expr(i.indpred, i.indrelid) AS predicate,
       (SELECT coalesce(sum(coalesce(s.avg_width, 32)), 0)::float8
        FROM unnest(i.indkey::int2[]) AS k (number)
        LEFT JOIN pg_attribute c ON c.attrelid = i.indrelid AND c.attnum = k.number AND k.number > 0
        LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = t.relname
                            AND s.attname = c.attname) AS width
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_am a ON a.oid = x.relam,
     pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE i.indexrelid = to_regclass($1) AND t.oid = to_regclass($2)
