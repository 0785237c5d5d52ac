-- $1 schemas, $2 pages: the tables that are larger
SELECT n.nspname || '.' || c.relname AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY ($1::text[]) AND c.relkind IN ('r', 'm')
  AND pg_relation_size(c.oid) > $2 * current_setting('block_size')::bigint
