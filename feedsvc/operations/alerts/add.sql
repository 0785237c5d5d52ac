-- Adds events. Sent twice after an answer that was lost, one is added once.
-- $1 text: a JSON array of objects with these keys.
insert into feedsvc.alerts (
    id, at, alert, event, severity, instance, value, until, reason, tenant, subject
)
select
    e.id, to_timestamp(e.at), e.alert, e.event, e.severity, e.instance, e.value,
    to_timestamp(e.until), e.reason, e.tenant, e.subject
from jsonb_to_recordset($1::text::jsonb) as e (
    id uuid, at float8, alert text, event text, severity text, instance text, value float8,
    until float8, reason text, tenant text, subject text
)
on conflict do nothing
