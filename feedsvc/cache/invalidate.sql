-- Tells every worker that what carries these tags is out of date, as a trigger would.
-- $1 text: the items of feedsvc.tags, with spaces between them.
select pg_notify('feedsvc_changes', pg_current_xact_id()::text || ' ' || $1)
