-- A beat: what is committed now, and a note to ourselves, behind which nothing told is outstanding.
-- $1 text: our own channel, $2 text: the note.
select pg_current_snapshot()::text, pg_notify($1, $2)
