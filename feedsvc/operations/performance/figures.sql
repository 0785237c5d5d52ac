-- $1 uuid[]: whose figures are wanted.
select id::text, figures
from feedsvc.performance
where id = any($1::uuid[])
