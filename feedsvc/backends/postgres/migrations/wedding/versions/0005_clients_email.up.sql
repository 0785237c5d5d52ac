-- concurrently
-- Phase 1, critical look-ups. A couple by the address that it wrote from.
CREATE INDEX CONCURRENTLY clients_email ON wedding.clients (tenant_id, lower(email));
