-- $1 schemas: their views, those first that others are made of
SELECT n.nspname AS schema, c.relname AS name,
       format('%I.%I', n.nspname, c.relname) AS quoted,
       quote_ident(c.relname) AS quoted_name,
       array_to_string(c.reloptions, ', ') AS options,
       pg_get_viewdef(c.oid) AS definition
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1::text[]) AND c.relkind = 'v'
ORDER BY c.oid
