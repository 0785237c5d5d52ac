-- Who read what, and what was refused. `result` is complete, refused, failed, cancelled, or dropped
-- for a note that so many (rows) entries are missing; `why` is the problem's name. `query` is there
-- only where the request was let in, and never holds a ticket.
CREATE TABLE feedsvc.audit (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    result text NOT NULL,
    why text,
    request_id text,
    method text,
    route text,
    status integer,
    elapsed_ms bigint,
    address inet,
    tenant text,
    role text,
    client text,
    subject text,
    dataset text,
    format text,
    query text,
    rows bigint,
    bytes bigint
);

-- For "what did this tenant's people read last week", and for trimming what is old.
CREATE INDEX audit_tenant_at ON feedsvc.audit (tenant, at);
CREATE INDEX audit_at ON feedsvc.audit USING brin (at);

ALTER TABLE feedsvc.audit ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY service_adds ON feedsvc.audit FOR INSERT TO feedsvc_service WITH CHECK (true);
-- Privileges decide who else may: its owner, and whom the owner grants them to.
CREATE POLICY operators_read ON feedsvc.audit FOR SELECT USING (true);
CREATE POLICY operators_trim ON feedsvc.audit FOR DELETE USING (true);

GRANT INSERT ON feedsvc.audit TO feedsvc_service;
