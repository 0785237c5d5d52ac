-- Proposals that the views for upkeep stand for, the largest first. $1 bigint: bytes of a table from
-- which on a foreign key without an index is one. Names are quoted by format.
SELECT 'drop' AS kind,
    format('DROP INDEX CONCURRENTLY %I.%I', schema, index) AS statement,
    format('%I.%I is covered by %I', schema, index, covered_by) AS reason,
    bytes AS weight,
    bytes
FROM feedsvc.duplicate_indexes
UNION ALL
SELECT 'index',
    format(
        'CREATE INDEX CONCURRENTLY ON %I.%I (%s)', schema, "table",
        (SELECT string_agg(quote_ident(c), ', ') FROM unnest(columns) AS c)
    ),
    format('to erase a row of %s reads all of %I.%I', referenced, schema, "table"),
    table_bytes,
    NULL
FROM feedsvc.unindexed_foreign_keys
WHERE table_bytes >= $1::bigint
ORDER BY 4 DESC, 2
LIMIT 100
