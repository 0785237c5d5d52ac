-- Tables and views with the columns that Dexter tries, those below a view, and of each btree
-- without condition or expression the first two keys, as its definition has them.
SELECT n.nspname || '.' || c.relname AS name,
       format('%I.%I', n.nspname, c.relname) AS quoted,
       ARRAY(
           SELECT a.attname::text FROM pg_attribute a
           WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             AND a.atttypid NOT IN ('json'::regtype, 'jsonb'::regtype, 'point'::regtype)
           ORDER BY a.attname
       ) AS columns,
       ARRAY(
           SELECT DISTINCT bn.nspname || '.' || b.relname
           FROM pg_rewrite r
           JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass
               AND d.refclassid = 'pg_class'::regclass
           JOIN pg_class b ON b.oid = d.refobjid AND b.oid <> c.oid
           JOIN pg_namespace bn ON bn.oid = b.relnamespace
           WHERE r.ev_class = c.oid AND c.relkind = 'v'
       ) AS below,
       ARRAY(
           SELECT substring(pg_get_indexdef(i.indexrelid) FROM '\((.*)\)$')
           FROM pg_index i
           JOIN pg_class x ON x.oid = i.indexrelid
           JOIN pg_am m ON m.oid = x.relam AND m.amname = 'btree'
           WHERE i.indrelid = c.oid AND i.indisvalid AND i.indexprs IS NULL AND i.indpred IS NULL
       ) AS keys
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm', 'v') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
ORDER BY name
