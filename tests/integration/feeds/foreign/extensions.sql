-- Types that extensions bring, kept in a schema of their own as many hosts do.
CREATE SCHEMA "Add Ons";
CREATE EXTENSION citext SCHEMA "Add Ons";
CREATE EXTENSION hstore SCHEMA "Add Ons";
CREATE TABLE crew (name "Add Ons".citext PRIMARY KEY, marks "Add Ons".hstore, aliases "Add Ons".citext[]);
INSERT INTO crew VALUES
    ('anna', 'a=>1, "b c"=>NULL', '{Anni,NULL}'), ('Berta', '', '{}'), ('cäsar', NULL, NULL),
    ('Dora', E'"line\nbreak"=>"\\"q\\""', '{"a,b"}'), ('emil', 'n=>01', NULL);
GRANT USAGE ON SCHEMA "Add Ons" TO PUBLIC;
GRANT SELECT ON crew TO PUBLIC;
