-- What the catalog knows of some relations, one row each.
-- $1 text[]: their schemas, $2 text[]: their names, pairwise.
with recursive wanted as (
    select w.ordinal, c.oid, c.relkind, c.relowner, n.nspname, c.relname
    from unnest($1::text[], $2::text[]) with ordinality as w (nspname, relname, ordinal)
    join pg_namespace n on n.nspname = w.nspname
    join pg_class c on c.relnamespace = n.oid and c.relname = w.relname
    where c.relkind in ('r', 'p', 'v', 'm', 'f')
),
-- Each column's type, and the types that it is made of: what a domain stands for, what an array or
-- a range holds, what a composite consists of.
made_of (relation, attnum, typ, depth, base) as (
    select w.oid, a.attnum, a.atttypid, 0, true
    from wanted w
    join pg_attribute a on a.attrelid = w.oid and a.attnum > 0 and not a.attisdropped
    union all
    select m.relation, m.attnum, inner_type.oid, m.depth + 1, m.base and t.typtype = 'd'
    from made_of m
    join pg_type t on t.oid = m.typ
    cross join lateral (
        select t.typbasetype as oid where t.typtype = 'd'
        union all
        select t.typelem where t.typtype = 'b' and t.typcategory = 'A'
        union all
        select r.rngsubtype from pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)
        union all
        select f.atttypid
        from pg_attribute f
        where t.typtype = 'c' and f.attrelid = t.typrelid and f.attnum > 0 and not f.attisdropped
    ) as inner_type
    where m.depth < 16
),
-- What a type is in PostgreSQL's binary form, by the name that streams.encoder has for it: a type of
-- PostgreSQL's own by its name, whatever is sent as its text, enums. One that has a cast to json of
-- its own is shown in JSON by that cast, and only SQL can tell what comes of it.
binary_kinds (typ, kind) as (
    select
        t.oid,
        case
            when t.oid = 'interval'::regtype and current_setting('server_version_num')::int < 170000
                then 'interval_before_17'
            when t.oid < 16384 and t.typtype = 'b' then t.typname
            when exists (
                select from pg_cast c
                where c.castsource = t.oid and c.casttarget = 'json'::regtype and c.castmethod = 'f'
            ) then null
            when t.typtype = 'e' then 'enum'
            when (
                select bool_and(p.prolang = 12) and array_agg(p.prosrc order by p.prosrc)
                    = '{textout,textsend}'
                from pg_proc p where p.oid in (t.typoutput, t.typsend)
            ) then 'text'
        end
    from pg_type t
    where t.typtype in ('b', 'e')
),
columns as (
    select
        a.attrelid,
        json_agg(
            json_build_object(
                'name', a.attname,
                'type', format_type(a.atttypid, a.atttypmod),
                -- Of a table alone: a domain's NOT NULL does not hold behind a view's outer join,
                -- and a constraint that is NOT VALID says nothing of the rows from before it.
                'nullable', w.relkind not in ('r', 'p')
                    or not (a.attnotnull or declared.typtype = 'd' and declared.typnotnull)
                    or exists (
                        select from pg_constraint nn
                        where nn.conrelid = a.attrelid and nn.contype = 'n'
                            and a.attnum = any (nn.conkey) and not nn.convalidated
                    ),
                'base', quote_ident(bn.nspname) || '.' || quote_ident(b.typname),
                'kind', b.typname,
                'category', b.typcategory,
                -- The operators that order it and compare it, where its type has any, are found by
                -- name; those of an extension may be out of the search path.
                'comparable', not exists (
                    select from pg_opclass oc
                    join pg_am am on am.oid = oc.opcmethod and am.amname = 'btree'
                    join pg_amop o on o.amopfamily = oc.opcfamily
                        and o.amoplefttype = oc.opcintype and o.amoprighttype = oc.opcintype
                    where oc.opcintype = b.oid and oc.opcdefault
                        and not pg_operator_is_visible(o.amopopr)
                ),
                'readable', has_column_privilege(a.attrelid, a.attnum, 'select'),
                -- Under another collation values may be equal and not the same.
                'one_text', coalesce((
                    select l.collisdeterministic from pg_collation l where l.oid = a.attcollation
                ), true),
                'holds_json', exists (
                    select from made_of h
                    where h.relation = a.attrelid and h.attnum = a.attnum
                        and h.typ = 'pg_catalog.json'::regtype
                ),
                'sent_as', coalesce(
                    (select k.kind || '[]' from binary_kinds k where k.typ = item.typ),
                    (select k.kind from binary_kinds k where k.typ = b.oid)
                ),
                'labels', array(
                    select e.enumlabel from pg_enum e where e.enumtypid = b.oid order by e.enumsortorder
                )
            )
            order by a.attnum
        ) as columns
    from wanted w
    join pg_attribute a on a.attrelid = w.oid and a.attnum > 0 and not a.attisdropped
    join pg_type declared on declared.oid = a.atttypid
    join lateral (
        select m.typ from made_of m
        where m.relation = a.attrelid and m.attnum = a.attnum and m.base
        order by m.depth desc
        limit 1
    ) as deepest on true
    join pg_type b on b.oid = deepest.typ
    join pg_namespace bn on bn.oid = b.typnamespace
    -- What an array's items are: a domain's underlying type.
    left join lateral (
        with recursive items (typ, typtype, depth) as (
            select i.oid, i.typtype, 0 from pg_type i
            where i.oid = b.typelem and b.typcategory = 'A'
                and b.typsubscript = 'array_subscript_handler'::regproc
            union all
            select i.oid, i.typtype, items.depth + 1
            from items
            join pg_type d on d.oid = items.typ and d.typtype = 'd'
            join pg_type i on i.oid = d.typbasetype
        )
        select items.typ from items where items.typtype <> 'd' order by items.depth desc limit 1
    ) as item on true
    group by a.attrelid
),
-- Usable indexes over plain columns. A partial one serves neither a key nor an order. `sorts` tells
-- whether ORDER BY could use it: its collations, operators and place of NULLs are the usual ones.
indexes as (
    select
        i.indrelid,
        json_agg(
            json_build_object(
                'unique', i.indisunique,
                'sorts', (
                    select bool_and(
                        oc.opcdefault and i.indcollation[k.position - 1] = a.attcollation
                        and i.indoption[k.position - 1] in (0, 3)
                    )
                    from generate_series(1, i.indnkeyatts) as k (position)
                    join pg_attribute a
                        on a.attrelid = i.indrelid and a.attnum = i.indkey[k.position - 1]
                    join pg_opclass oc on oc.oid = i.indclass[k.position - 1]
                ),
                'columns', (
                    select json_agg(
                        json_build_object(
                            'name', a.attname,
                            'descending', i.indoption[k.position - 1] & 1 = 1
                        )
                        order by k.position
                    )
                    from generate_series(1, i.indnkeyatts) as k (position)
                    join pg_attribute a
                        on a.attrelid = i.indrelid and a.attnum = i.indkey[k.position - 1]
                )
            )
        ) as indexes
    from wanted w
    join pg_index i on i.indrelid = w.oid
    join pg_class ic on ic.oid = i.indexrelid
    join pg_am am on am.oid = ic.relam
    where am.amname = 'btree' and i.indisvalid and i.indpred is null and i.indexprs is null
    group by i.indrelid
)
select
    w.ordinal::int as ordinal,
    w.relkind::text as relkind,
    quote_ident(current_user) as login,
    pg_has_role(w.relowner, 'member') as owned,
    array(
        select distinct a.attname::text
        from pg_partition_tree(w.oid) part
        join pg_partitioned_table p on p.partrelid = part.relid
        cross join lateral unnest(p.partattrs::int2[]) as k (attnum)
        join pg_attribute a on a.attrelid = part.relid and a.attnum = k.attnum
        order by 1
    ) as partitioned_by,
    exists (
        select from pg_partition_tree(w.oid) part
        join pg_partitioned_table p on p.partrelid = part.relid
        where 0 = any (p.partattrs)
    ) as partitioned_by_expression,
    columns.columns::text as columns,
    coalesce(indexes.indexes, '[]')::text as indexes
from wanted w
join columns on columns.attrelid = w.oid
left join indexes on indexes.indrelid = w.oid
