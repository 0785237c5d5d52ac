-- The first two tenants, which are the largest, each with the first of its clients.
select tenant_id, min(id) as client_id
from wedding.clients
group by tenant_id
order by client_id
limit 2
