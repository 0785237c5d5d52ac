-- concurrently
-- Phase 1. A guest by the address that answers an invitation.
CREATE INDEX CONCURRENTLY guests_email ON wedding.guests (tenant_id, lower(email));
