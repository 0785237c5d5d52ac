-- Writes a batch of entries. Sent twice after an answer that was lost, an entry is written once.
-- $1 text: a JSON array of objects with these keys.
insert into feedsvc.audit (
    id, at, request_id, method, route, status, result, why, elapsed_ms, address,
    tenant, role, client, subject, dataset, format, query, rows, bytes
)
select
    e.id, to_timestamp(e.at), e.request_id, e.method, e.route, e.status, e.result, e.why,
    e.elapsed_ms, e.address::inet,
    e.tenant, e.role, e.client, e.subject, e.dataset, e.format, e.query, e.rows, e.bytes
from jsonb_to_recordset($1::text::jsonb) as e (
    id uuid, at float8, request_id text, method text, route text, status int, result text, why text,
    elapsed_ms bigint, address text,
    tenant text, role text, client text, subject text, dataset text, format text, query text,
    rows bigint, bytes bigint
)
on conflict do nothing
