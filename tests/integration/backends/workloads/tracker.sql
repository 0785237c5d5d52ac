-- 7, 17
SELECT * FROM tracker.issue WHERE project_id = $1 AND number = $2;
-- 7
SELECT * FROM tracker.issue WHERE project_id = $1 AND state = 'open' ORDER BY updated_at DESC LIMIT 25;
-- 7
SELECT count(*) FROM tracker.issue WHERE project_id = $1 AND state = 'open';
-- 7, 3
SELECT * FROM tracker.issue WHERE project_id = $1 AND assignee_id = $2 ORDER BY number DESC LIMIT 25;
-- 3
SELECT * FROM tracker.issue WHERE assignee_id = $1 AND state = 'open' ORDER BY due_on NULLS LAST LIMIT 25;
-- 7, ARRAY['bug']
SELECT * FROM tracker.issue WHERE project_id = $1 AND labels @> $2::text[] LIMIT 25;
-- ARRAY['label 33']
SELECT id FROM tracker.issue WHERE labels && $1::text[];
-- '{"browser": "b17"}'
SELECT * FROM tracker.issue WHERE fields @> $1::jsonb LIMIT 25;
-- 'b17'
SELECT * FROM tracker.issue WHERE fields ->> 'browser' = $1 ORDER BY id LIMIT 25;
-- 'crash 17'
SELECT * FROM tracker.issue WHERE lower(title) = $1;
-- 'crash 17%'
SELECT * FROM tracker.issue WHERE lower(title) LIKE $1 LIMIT 10;
-- '2026-02-01'
SELECT * FROM tracker.issue WHERE due_on < $1 AND state = 'open';
--
SELECT * FROM tracker.issue WHERE deleted_at IS NOT NULL ORDER BY deleted_at LIMIT 100;
-- 'open'
SELECT * FROM tracker.issue WHERE state = $1 ORDER BY id LIMIT 25;
-- 17
SELECT * FROM tracker.issue WHERE id = $1;
-- 17
SELECT * FROM tracker.issue WHERE parent_id = $1;
-- 17
SELECT * FROM tracker.comment WHERE issue_id = $1 ORDER BY written_at LIMIT 50;
-- 17
SELECT count(*), max(written_at) FROM tracker.comment WHERE issue_id = $1;
-- 3
SELECT * FROM tracker.comment WHERE author_id = $1 ORDER BY written_at DESC LIMIT 20;
-- 7
SELECT c.* FROM tracker.comment c JOIN tracker.issue i ON i.id = c.issue_id WHERE i.project_id = $1 ORDER BY c.written_at DESC LIMIT 20;
-- '2026-01-05', '2026-01-06'
SELECT count(*) FROM tracker.comment WHERE written_at >= $1 AND written_at < $2;
-- 'user17@example.org'
SELECT * FROM tracker.member WHERE lower(email) = $1;
-- 7
SELECT m.* FROM tracker.member m JOIN tracker.seat s ON s.member_id = m.id WHERE s.project_id = $1 ORDER BY m.name LIMIT 50;
-- 3
SELECT p.* FROM tracker.project p JOIN tracker.seat s ON s.project_id = p.id WHERE s.member_id = $1;
-- 3
SELECT * FROM tracker.notice WHERE member_id = $1 AND read_at IS NULL ORDER BY id DESC LIMIT 20;
-- 3
SELECT count(*) FROM tracker.notice WHERE member_id = $1 AND read_at IS NULL;
-- 17, 'issue'
SELECT * FROM tracker.notice WHERE subject_id = $1 AND subject_kind = $2;
-- '2026-01-05'
DELETE FROM tracker.notice WHERE read_at < $1;
-- 7
SELECT state, count(*) FROM tracker.issue WHERE project_id = $1 GROUP BY state;
-- 7
SELECT i.assignee_id, count(*) FROM tracker.issue i WHERE i.project_id = $1 AND i.state = 'open' GROUP BY 1;
