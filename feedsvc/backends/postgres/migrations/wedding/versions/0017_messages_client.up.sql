-- concurrently
-- Phase 2. A couple's conversation.
CREATE INDEX CONCURRENTLY messages_client ON wedding.messages (tenant_id, client_id, sent_at, id);
