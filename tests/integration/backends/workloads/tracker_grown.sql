-- An issue tracker: a state as an enum, labels as an array, fields of a project's own as jsonb.
CREATE SCHEMA tracker;
CREATE TYPE tracker.state AS ENUM ('open', 'waiting', 'closed');
CREATE TABLE tracker.project (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE tracker.member (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL);
CREATE TABLE tracker.seat (
    project_id int REFERENCES tracker.project, member_id int REFERENCES tracker.member,
    PRIMARY KEY (project_id, member_id)
);
CREATE TABLE tracker.issue (
    id int PRIMARY KEY, project_id int NOT NULL REFERENCES tracker.project, number int NOT NULL,
    parent_id int, assignee_id int REFERENCES tracker.member, state tracker.state NOT NULL,
    title text NOT NULL, labels text[] NOT NULL, fields jsonb NOT NULL, due_on date,
    updated_at timestamptz NOT NULL, deleted_at timestamptz
);
CREATE TABLE tracker.comment (
    id int PRIMARY KEY, issue_id int NOT NULL REFERENCES tracker.issue,
    author_id int REFERENCES tracker.member, body text NOT NULL, written_at timestamptz NOT NULL
);
CREATE TABLE tracker.notice (
    id int PRIMARY KEY, member_id int NOT NULL, subject_kind text NOT NULL, subject_id int NOT NULL,
    read_at timestamptz
);
INSERT INTO tracker.project SELECT n, 'Project ' || n FROM generate_series(1, 60) AS n;
INSERT INTO tracker.member
SELECT n, 'User ' || n * 7 % 2000, 'User' || n || '@example.org' FROM generate_series(1, 2000) AS n;
INSERT INTO tracker.seat
SELECT 1 + n % 60, 1 + n * 7 % 2000 FROM generate_series(1, 6000) AS n ON CONFLICT DO NOTHING;
INSERT INTO tracker.issue
SELECT n, 1 + (n * n) % 60, n / 60, CASE WHEN n % 8 = 0 THEN n * 31 % 12000 END,
    CASE WHEN n % 5 > 0 THEN 1 + n * 13 % 2000 END,
    (ARRAY['closed', 'closed', 'closed', 'closed', 'waiting', 'open'])[1 + n % 6]::tracker.state,
    'Crash ' || n, ARRAY['label ' || n % 400, CASE WHEN n % 90 = 0 THEN 'bug' ELSE 'task' END],
    jsonb_build_object('browser', 'b' || n % 500, 'os', n % 5),
    CASE WHEN n % 3 > 0 THEN date '2026-01-01' + n * 7 % 700 END,
    timestamptz '2026-01-01 00:00+00' + n * 97 % 12000 * interval '17 minutes',
    CASE WHEN n % 200 = 0 THEN timestamptz '2026-01-01 00:00+00' + n * interval '1 minute' END
FROM generate_series(1, 12000) AS n;
INSERT INTO tracker.comment
SELECT n, 1 + n * 31 % 12000, 1 + n * 17 % 2000, 'It does that here too. ' || n,
    timestamptz '2026-01-01 00:00+00' + n * interval '11 minutes'
FROM generate_series(1, 24000) AS n;
INSERT INTO tracker.notice
SELECT n, 1 + n * 19 % 2000, CASE WHEN n % 4 > 0 THEN 'issue' ELSE 'comment' END, n * 7 % 12000,
    CASE WHEN n % 12 > 0 THEN timestamptz '2026-01-01 00:00+00' + n * interval '9 minutes' END
FROM generate_series(1, 24000) AS n;
