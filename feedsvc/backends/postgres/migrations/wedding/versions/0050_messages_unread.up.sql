-- concurrently
-- Phase 6, partial indexes: of what is open, which is little of all. One message of eight is
-- unread.
CREATE INDEX CONCURRENTLY messages_unread
    ON wedding.messages (tenant_id, sent_at, id) WHERE read_at IS NULL;
