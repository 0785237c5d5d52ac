-- The hash alone is kept, so that whoever reads the table or a backup holds no ticket.
CREATE TABLE feedsvc.tickets (
    id bytea PRIMARY KEY CHECK (octet_length(id) = 32),
    path text NOT NULL,
    principal jsonb NOT NULL,
    expires_at timestamptz NOT NULL
);

-- For the sweep of what nobody used.
CREATE INDEX tickets_expires_at ON feedsvc.tickets (expires_at);

-- The operator then says: GRANT feedsvc_service TO his_login. The login owns nothing here.
GRANT USAGE ON SCHEMA feedsvc TO feedsvc_service;
GRANT SELECT, INSERT, DELETE ON feedsvc.tickets TO feedsvc_service;
-- For the service to see, when it starts, whether the database is migrated far enough.
GRANT SELECT ON feedsvc.alembic_version TO feedsvc_service;
