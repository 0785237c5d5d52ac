-- Tables that the login reads and about which the planner knows too little: never analyzed and not
-- small, or changed for more than their half since.
select format('%I.%I', s.schemaname, s.relname) as name, c.reltuples < 0 as never
from pg_stat_all_tables s
join pg_class c on c.oid = s.relid and c.relkind = 'r'
where s.schemaname !~ '^pg_' and s.schemaname <> 'information_schema'
    and has_any_column_privilege(c.oid, 'select')
    and case
        when c.reltuples < 0 then pg_relation_size(c.oid) > 1048576
        else s.n_mod_since_analyze > 10000 + c.reltuples / 2
    end
order by name
