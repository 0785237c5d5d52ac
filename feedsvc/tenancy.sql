-- Tells row-level security who reads, until the transaction ends. A policy asks for it with
-- (select current_setting('feedsvc.tenant', true)). The snapshot is the one that all is read in.
select
    set_config('feedsvc.tenant', $1, true),
    set_config('feedsvc.role', $2, true),
    set_config('feedsvc.client', $3, true),
    pg_current_snapshot()::text
