-- Three tables of many tenants. A row's canary, which says whose it is, stands in `mark`, inside
-- `extra`, and in each column of text that orders or names the row.
-- The ids of letters are the same in every tenant, so that one URL means another row for each.

CREATE SCHEMA post;

CREATE TABLE post.letters (
    tenant_id text NOT NULL,
    id bigint NOT NULL,
    client_id bigint NOT NULL,
    sorted_by text COLLATE "C" NOT NULL,
    mark text COLLATE "C" NOT NULL,
    extra jsonb NOT NULL,
    filler text NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ON post.letters (tenant_id, sorted_by, id);

-- A key of two columns, the first of them a text with a canary.
CREATE TABLE post.stamps (
    tenant_id text NOT NULL,
    code text COLLATE "C" NOT NULL,
    seq integer NOT NULL,
    client_id bigint NOT NULL,
    mark text COLLATE "C" NOT NULL,
    extra jsonb NOT NULL,
    PRIMARY KEY (code, seq)
);
CREATE INDEX ON post.stamps (tenant_id, code, seq);
CREATE INDEX ON post.stamps (tenant_id, seq, code);

-- What a tenant shows to all of its clients, with keys that no two tenants share.
CREATE TABLE post.notices (
    tenant_id text NOT NULL,
    id bigint PRIMARY KEY,
    topic text COLLATE "C" NOT NULL,
    mark text COLLATE "C" NOT NULL,
    extra jsonb NOT NULL
);
CREATE INDEX ON post.notices (tenant_id, id);
CREATE INDEX ON post.notices (tenant_id, topic, id);

GRANT USAGE ON SCHEMA post TO feedsvc_tests;
GRANT SELECT ON ALL TABLES IN SCHEMA post TO feedsvc_tests;

ALTER TABLE post.letters ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE post.stamps ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE post.notices ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON post.letters FOR SELECT TO feedsvc_tests USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
    AND ((SELECT coalesce(current_setting('feedsvc.client', true), '') = '')
         OR client_id::text = (SELECT current_setting('feedsvc.client', true)))
);
CREATE POLICY own_tenant ON post.stamps FOR SELECT TO feedsvc_tests USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
    AND ((SELECT coalesce(current_setting('feedsvc.client', true), '') = '')
         OR client_id::text = (SELECT current_setting('feedsvc.client', true)))
);
CREATE POLICY own_tenant ON post.notices FOR SELECT TO feedsvc_tests USING (
    tenant_id = (SELECT nullif(current_setting('feedsvc.tenant', true), ''))
);
