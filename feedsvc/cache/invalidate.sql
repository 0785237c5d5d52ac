-- Logs that what carries these tags is out of date. $1 bytea: four bytes for each tag.
select feedsvc.log_invalidation($1)
