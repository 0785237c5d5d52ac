-- $1 schema, $2 names: those of which there is no index, or one that can't be read
SELECT wanted.name
FROM unnest($2::text[]) WITH ORDINALITY AS wanted (name, place)
WHERE NOT EXISTS (
    SELECT FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
    WHERE c.relnamespace = to_regnamespace($1) AND c.relname = wanted.name
      AND i.indisvalid AND i.indisready AND i.indislive
)
ORDER BY wanted.place
