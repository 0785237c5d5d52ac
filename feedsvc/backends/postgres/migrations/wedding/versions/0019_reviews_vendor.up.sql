-- concurrently
-- Phase 2. A vendor's reviews.
CREATE INDEX CONCURRENTLY reviews_vendor ON wedding.reviews (tenant_id, vendor_id, created_at, id);
