-- concurrently
-- Phase 6. Notifications that were not read.
CREATE INDEX CONCURRENTLY notifications_unread
    ON wedding.notifications (tenant_id, sent_at, id) WHERE read_at IS NULL;
