-- $1 a login, as an identifier: its settings of the planner in this database, where there are
-- several of one the last holds
SELECT split_part(each, '=', 1) AS name, substr(each, strpos(each, '=') + 1) AS value
FROM pg_db_role_setting s, unnest(s.setconfig) AS each
WHERE s.setrole IN (0, (SELECT r.oid FROM pg_roles r WHERE quote_ident(r.rolname) = $1))
  AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
  AND split_part(each, '=', 1) = ANY ('{work_mem,hash_mem_multiplier,jit,jit_above_cost}')
ORDER BY s.setrole <> 0, s.setdatabase <> 0
