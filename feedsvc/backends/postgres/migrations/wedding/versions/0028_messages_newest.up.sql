-- concurrently
-- Phase 3. A feed's order.
CREATE INDEX CONCURRENTLY messages_newest ON wedding.messages (tenant_id, sent_at, id);
