-- concurrently
-- Phase 6. Invitations without an answer.
CREATE INDEX CONCURRENTLY guests_unanswered
    ON wedding.guests (tenant_id, updated_at, id) WHERE rsvp = 'pending';
