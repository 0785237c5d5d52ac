-- $1 tables' ids, $2 columns, $3 operators, beside each other: those operators that are not
-- leakproof, each with an index of the column whose operators it is one of, if there is one
SELECT wanted.id, wanted.name AS column_name, wanted.operator,
       (SELECT min(i.indexrelid::regclass::text)
        FROM pg_index i
        JOIN generate_series(0, i.indnkeyatts - 1) AS place ON i.indkey[place] = a.attnum
        JOIN pg_opclass k ON k.oid = i.indclass[place]
        JOIN pg_amop m ON m.amopfamily = k.opcfamily
        JOIN pg_operator mo ON mo.oid = m.amopopr
        WHERE i.indrelid = wanted.id AND i.indisvalid AND mo.oprname = wanted.operator) AS index_name
FROM unnest($1::oid[], $2::text[], $3::text[]) AS wanted (id, name, operator)
JOIN pg_attribute a ON a.attrelid = wanted.id AND a.attname = wanted.name AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
WHERE EXISTS (
    SELECT FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
    WHERE o.oprname = wanted.operator AND NOT p.proleakproof
      AND (o.oprleft IN (t.oid, t.typbasetype) OR (t.typname = 'varchar' AND o.oprleft = 'text'::regtype)
           OR o.oprleft IN ('anyarray'::regtype, 'anyenum'::regtype, 'anyrange'::regtype)
              AND (t.typtype IN ('e', 'r') OR t.typcategory = 'A')))
  AND NOT EXISTS (
    SELECT FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
    WHERE o.oprname = wanted.operator AND p.proleakproof
      AND (o.oprleft IN (t.oid, t.typbasetype) OR (t.typname = 'varchar' AND o.oprleft = 'text'::regtype)))
