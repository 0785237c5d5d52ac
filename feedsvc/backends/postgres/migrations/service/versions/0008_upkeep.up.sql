-- Views for upkeep, of the whole database but PostgreSQL's own schemas. Figures are those of
-- PostgreSQL's statistics: since their last reset, and estimates as of the last ANALYZE. None shows
-- a row or the text of a statement.

CREATE VIEW feedsvc.index_usage AS
SELECT s.schemaname AS schema, s.relname AS "table", s.indexrelname AS index,
       pg_relation_size(s.indexrelid) AS bytes, s.idx_scan AS scans, s.idx_tup_read AS entries_read,
       i.indisunique AS is_unique, i.indisvalid AS is_valid,
       NOT i.indisunique AND i.indisvalid AND s.idx_scan = 0 AS is_unused
FROM pg_stat_user_indexes s JOIN pg_index i ON i.indexrelid = s.indexrelid;
COMMENT ON VIEW feedsvc.index_usage IS
    'Each index with its size and scans. is_unused: never scanned, and no constraint needs it';

CREATE VIEW feedsvc.duplicate_indexes AS
WITH described AS (
    SELECT i.indexrelid, i.indrelid, n.nspname AS schema, t.relname AS "table", x.relname AS index,
           i.indisunique OR k.oid IS NOT NULL AS keeps_unique, i.indnkeyatts::int AS keys,
           a.amname, coalesce(pg_get_expr(i.indpred, i.indrelid), '') AS predicate,
           ARRAY(SELECT pg_get_indexdef(i.indexrelid, p, true) || ' ' || i.indclass[p - 1] || ' '
                        || i.indcollation[p - 1] || ' ' || i.indoption[p - 1]
                 FROM generate_series(1, i.indnkeyatts) AS p) AS columns,
           ARRAY(SELECT pg_get_indexdef(i.indexrelid, p, true)
                 FROM generate_series(1, i.indnatts) AS p) AS held,
           ARRAY(SELECT pg_get_indexdef(i.indexrelid, p, true)
                 FROM generate_series(i.indnkeyatts + 1, i.indnatts) AS p) AS included
    FROM pg_index i
    JOIN pg_class x ON x.oid = i.indexrelid
    JOIN pg_class t ON t.oid = i.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    JOIN pg_am a ON a.oid = x.relam
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
    WHERE i.indisvalid AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
)
SELECT one.schema, one."table", one.index, other.index AS covered_by,
       one.columns = other.columns AS is_duplicate, pg_relation_size(one.indexrelid) AS bytes
FROM described one
JOIN described other ON other.indrelid = one.indrelid AND other.indexrelid <> one.indexrelid
    AND other.amname = one.amname AND other.predicate = one.predicate
WHERE NOT one.keeps_unique AND one.included <@ other.held
  AND (one.columns = other.columns
           AND (other.keeps_unique OR one.index > other.index OR NOT other.included <@ one.held)
       OR one.amname = 'btree' AND one.keys < other.keys
          AND one.columns = other.columns[:one.keys]);
COMMENT ON VIEW feedsvc.duplicate_indexes IS
    'Each index that another one covers: by the same columns (is_duplicate), or as its beginning';

CREATE VIEW feedsvc.unindexed_foreign_keys AS
SELECT n.nspname AS schema, t.relname AS "table", k.conname AS "constraint",
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS c (number, place)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = c.number
             ORDER BY c.place) AS columns,
       k.confrelid::regclass::text AS referenced, pg_table_size(t.oid) AS table_bytes
FROM pg_constraint k
JOIN pg_class t ON t.oid = k.conrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (
      SELECT FROM pg_index i
      WHERE i.indrelid = k.conrelid AND i.indisvalid AND i.indpred IS NULL
        AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey
  );
COMMENT ON VIEW feedsvc.unindexed_foreign_keys IS
    'Each foreign key without an index: erasing a referenced row reads all of the table';

CREATE VIEW feedsvc.table_bloat AS
WITH sized AS (
    SELECT n.nspname AS schema, c.relname AS "table", c.oid, c.reltuples,
           pg_relation_size(c.oid) AS bytes, current_setting('block_size')::float8 AS block,
           -- 24 for the row's header, 4 for its pointer, 4 for alignment.
           32 + coalesce(sum(s.avg_width * (1 - s.null_frac)), 0) AS width
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND NOT s.inherited
    WHERE c.relkind IN ('r', 'm') AND c.reltuples >= 0
      AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    GROUP BY n.nspname, c.relname, c.oid, c.reltuples
)
SELECT sized.schema, sized."table", bytes,
       greatest(bytes - ceil(reltuples * width / (block - 24)) * block, 0)::bigint AS bloat_bytes,
       coalesce(t.n_dead_tup, 0) AS dead_rows,
       greatest(t.last_vacuum, t.last_autovacuum) AS vacuumed_at,
       greatest(t.last_analyze, t.last_autoanalyze) AS analyzed_at
FROM sized LEFT JOIN pg_stat_all_tables t ON t.relid = sized.oid;
COMMENT ON VIEW feedsvc.table_bloat IS
    'Each table with bytes that its rows would not need, by the widths of the last ANALYZE';

CREATE VIEW feedsvc.cache_ratio AS
SELECT schemaname AS schema, relname AS "table",
       heap_blks_read + coalesce(idx_blks_read, 0) AS pages_read,
       heap_blks_hit + coalesce(idx_blks_hit, 0) AS pages_found,
       round((heap_blks_hit + coalesce(idx_blks_hit, 0))::numeric
             / nullif(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit, 0)
                      + coalesce(idx_blks_read, 0), 0), 4) AS ratio
FROM pg_statio_user_tables;
COMMENT ON VIEW feedsvc.cache_ratio IS
    'Each table with the share of its pages, its indexes'' too, that were found in shared_buffers';

CREATE VIEW feedsvc.long_transactions AS
SELECT pid, usename AS login, application_name AS application, state, xact_start AS since,
       now() - xact_start AS age, backend_xmin IS NOT NULL AS holds_back_vacuum,
       pg_blocking_pids(pid) AS waits_for
FROM pg_stat_activity
WHERE datname = current_database() AND xact_start < now() - interval '1 minute'
  AND backend_type = 'client backend';
COMMENT ON VIEW feedsvc.long_transactions IS
    'Each transaction that is older than a minute; of other logins for members of pg_monitor';

CREATE FUNCTION feedsvc.upkeep() RETURNS TABLE (kind text, object text, detail text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT 'unused index', format('%I.%I', u.schema, u.index),
           format('%s, never scanned since the statistics were reset', pg_size_pretty(u.bytes))
    FROM feedsvc.index_usage u WHERE u.is_unused AND u.bytes > 1048576
    UNION ALL
    SELECT 'covered index', format('%I.%I', d.schema, d.index),
           format('%s does its work', d.covered_by)
    FROM feedsvc.duplicate_indexes d
    UNION ALL
    SELECT 'foreign key without an index', format('%I.%I', f.schema, f."table"),
           format('%s (%s)', f."constraint", array_to_string(f.columns, ', '))
    FROM feedsvc.unindexed_foreign_keys f
    UNION ALL
    SELECT 'bloat', format('%I.%I', b.schema, b."table"),
           format('about %s of %s', pg_size_pretty(b.bloat_bytes), pg_size_pretty(b.bytes))
    FROM feedsvc.table_bloat b WHERE b.bloat_bytes > 8388608 AND b.bloat_bytes * 2 > b.bytes
    UNION ALL
    SELECT 'long transaction', format('process %s', t.pid), format('%s, %s', t.state, t.age)
    FROM feedsvc.long_transactions t
    ORDER BY 1, 2
$$;
COMMENT ON FUNCTION feedsvc.upkeep() IS
    'The upkeep views in one: an object a row, with what is the matter. An empty answer is the aim';

GRANT SELECT ON feedsvc.index_usage, feedsvc.duplicate_indexes, feedsvc.unindexed_foreign_keys,
    feedsvc.table_bloat, feedsvc.cache_ratio, feedsvc.long_transactions TO feedsvc_service;
