-- $1 interval: what is older is forgotten.
delete from feedsvc.alerts where at < now() - $1::interval
