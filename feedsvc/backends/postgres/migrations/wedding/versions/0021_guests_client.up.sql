-- concurrently
-- Phase 2. A couple's guests by name.
CREATE INDEX CONCURRENTLY guests_client ON wedding.guests (tenant_id, client_id, name, id);
