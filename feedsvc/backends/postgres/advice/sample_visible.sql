-- $1 schema, $2 table, $3 pages that are visible to all, without which no index covers a query
SELECT pg_restore_relation_stats('schemaname', $1::text, 'relname', $2::text,
                                 'relallvisible', $3::integer)
