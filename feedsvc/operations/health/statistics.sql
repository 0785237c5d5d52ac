-- Tables that the login reads and about which the planner knows too little: never analyzed and not
-- small, or changed for more than their half since. Parts of the change log are filled and emptied in
-- turn, and read in the same way whatever is known of them.
select format('%I.%I', s.schemaname, s.relname) as name, c.reltuples < 0 as never
from pg_stat_all_tables s
join pg_class c on c.oid = s.relid and c.relkind = 'r'
where s.schemaname !~ '^pg_' and s.schemaname <> 'information_schema'
    and has_any_column_privilege(c.oid, 'select')
    and not exists (
        select from pg_inherits i
        join pg_class log on log.oid = i.inhparent and log.relname = 'log'
        where i.inhrelid = c.oid and s.schemaname = 'feedsvc'
    )
    and case
        when c.reltuples < 0 then pg_relation_size(c.oid) > 1048576
        else s.n_mod_since_analyze > 10000 + c.reltuples / 2
    end
order by name
