-- $1 table as schema.name, $2 column: its most frequent value, and how often it is there of 1
SELECT (most_common_vals::text::text[])[1] AS value, most_common_freqs[1]::float8 AS part
FROM pg_stats
WHERE schemaname || '.' || tablename = $1 AND quote_ident(attname) = $2
  AND most_common_vals IS NOT NULL
