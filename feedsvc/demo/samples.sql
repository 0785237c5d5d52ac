-- The two largest tenants, each with the first of its clients.
select tenant_id, min(id) as client_id
from wedding.clients
group by tenant_id
order by count(*) desc, tenant_id
limit 2
