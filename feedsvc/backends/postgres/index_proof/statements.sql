-- The statements of this database that took the most time, as pg_stat_statements keeps them.
-- $1 text: a login whose statements are left out, or null.
SELECT queryid::text AS id, query, calls, total_exec_time, mean_exec_time, rows,
    pg_get_userbyid(userid) AS login
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.userid IS DISTINCT FROM to_regrole(quote_ident($1))
    AND query ~* '^\s*(select|with)\M'
ORDER BY total_exec_time DESC
LIMIT 200
