-- $1 schema, $2 name of an index: whether it can be read, and its definition; NULLs without it
SELECT i.indisvalid AND i.indisready AND i.indislive AS valid,
       pg_get_indexdef(i.indexrelid) AS definition
FROM (VALUES (to_regnamespace($1))) AS s (oid)
LEFT JOIN pg_class c ON c.relnamespace = s.oid AND c.relname = $2 AND c.relkind IN ('i', 'I')
LEFT JOIN pg_index i ON i.indexrelid = c.oid
