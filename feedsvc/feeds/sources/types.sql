-- Whether columns still are of the types that they had at the start.
-- $1 text: the relation, quoted; $2 text[]: their names, $3 text[]: their types, pairwise.
select count(*) = cardinality($2::text[])
from unnest($2::text[], $3::text[]) as had (name, type)
join pg_attribute a
    on a.attrelid = to_regclass($1::text) and a.attname = had.name
    and a.attnum > 0 and not a.attisdropped
where format_type(a.atttypid, a.atttypmod) = had.type
