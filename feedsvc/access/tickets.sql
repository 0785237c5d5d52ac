-- Takes a ticket: to delete its row is to use it, so it is good once, whichever worker asks.
-- $1 bytea: the ticket's digest, $2 text: the path that is asked for.
delete from feedsvc.tickets
where id = $1 and path = $2 and expires_at > now()
returning principal::text
