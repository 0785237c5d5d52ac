-- $1 interval: what is older is of no use.
delete from feedsvc.performance where at < now() - $1::interval
