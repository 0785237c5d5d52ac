-- concurrently
-- Phase 1. A vendor by its address.
CREATE INDEX CONCURRENTLY vendors_email ON wedding.vendors (tenant_id, lower(email));
