-- $1 an index as schema.name: it, and its partitions' ones, as plans name them, with their bytes
WITH RECURSIVE parts AS (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname || '.' || c.relname = $1
    UNION
    SELECT i.inhrelid FROM pg_inherits i JOIN parts p ON p.oid = i.inhparent
)
SELECT n.nspname || '.' || c.relname AS name, pg_relation_size(c.oid) AS bytes
FROM parts JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
