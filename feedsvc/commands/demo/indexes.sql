-- $1 a table; its indexes as statements that drop them and build them again
SELECT
    CASE WHEN k.oid IS NULL THEN format('DROP INDEX %s', i.indexrelid::regclass)
         ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', i.indrelid::regclass, k.conname)
    END AS drop,
    CASE WHEN k.oid IS NULL THEN pg_get_indexdef(i.indexrelid)
         ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', i.indrelid::regclass, k.conname,
                     pg_get_constraintdef(k.oid))
    END AS build
FROM pg_index i
LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
WHERE i.indrelid = $1::text::regclass
  -- What another table's foreign key leans on stays, or the key would have to go as well.
  AND NOT EXISTS (
      SELECT FROM pg_constraint f WHERE f.conindid = i.indexrelid AND f.contype = 'f'
  )
ORDER BY i.indexrelid;
