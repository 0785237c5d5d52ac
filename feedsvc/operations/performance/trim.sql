-- $1 interval: what is older is of no use to anybody.
delete from feedsvc.performance where at < now() - $1::interval
