-- concurrently
-- Phase 2. A vendor's calendar.
CREATE INDEX CONCURRENTLY availability_vendor
    ON wedding.availability (tenant_id, vendor_id, period, id);
