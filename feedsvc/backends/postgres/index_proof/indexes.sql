-- $1 schemas, $2 tables as schema.name, or NULL for all of them: their indexes
SELECT n.nspname || '.' || x.relname AS name,
       n.nspname || '.' || t.relname AS table_name,
       pg_get_indexdef(i.indexrelid) AS definition,
       a.amname AS method,
       i.indisunique AS is_unique,
       -- Of a constraint, of a primary key or of a replica identity: not to be dropped as an index.
       k.oid IS NOT NULL OR i.indisreplident AS is_constraint,
       pg_relation_size(i.indexrelid) AS bytes,
       coalesce(s.idx_scan, 0) AS scans,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, key, true) || ' '
                    || (SELECT opcname FROM pg_opclass WHERE oid = i.indclass[key - 1]) || ' '
                    || i.indcollation[key - 1] || ' ' || i.indoption[key - 1]
             FROM generate_series(1, i.indnkeyatts) AS key) AS keys,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, key, true)
             FROM generate_series(i.indnkeyatts + 1, i.indnatts) AS key) AS included,
       coalesce(pg_get_expr(i.indpred, i.indrelid), '') AS predicate
FROM pg_index i
JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_class t ON t.oid = i.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
JOIN pg_am a ON a.oid = x.relam
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
LEFT JOIN pg_stat_all_indexes s ON s.indexrelid = i.indexrelid
WHERE n.nspname = ANY ($1::text[]) AND i.indisvalid AND t.relkind IN ('r', 'm')
  AND ($2::text[] IS NULL OR n.nspname || '.' || t.relname = ANY ($2))
ORDER BY table_name, name
