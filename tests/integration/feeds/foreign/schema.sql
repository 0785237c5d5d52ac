-- A shipyard: another trade than the demo's, and names, keys and types as nobody would choose them.

CREATE SCHEMA "Ship Yard";

CREATE TYPE "Ship Yard"."Work Kind" AS ENUM
    ('hull, welding', 'paint "matt"', 'engine; fitting', '=trials', 'Übergabe');
CREATE TYPE "Ship Yard"."Point 3D" AS (x numeric, "y, z" double precision[], note text, raw json);
CREATE DOMAIN "Ship Yard".tonnage AS numeric(24, 6) CHECK (VALUE >= 0);
CREATE DOMAIN "Ship Yard"."Call Sign" AS varchar(12) CHECK (VALUE <> 'forbidden');
CREATE DOMAIN "Ship Yard".berthed AS "Ship Yard"."Call Sign" NOT NULL;
CREATE DOMAIN "Ship Yard".sheet AS json;

CREATE FUNCTION "Ship Yard".yard() RETURNS text LANGUAGE sql STABLE
    RETURN nullif(current_setting('feedsvc.tenant', true), '');

-- A tenant that is a UUID, a key of three parts and types, columns named like parameters.
CREATE TABLE "Ship Yard"."Work.Orders ""2026""" (
    "Yard Id" uuid NOT NULL,
    "Hull No." text COLLATE "C" NOT NULL,
    seq integer NOT NULL,
    kind "Ship Yard"."Work Kind" NOT NULL,
    "limit" integer NOT NULL,
    "order" text COLLATE "POSIX" NOT NULL,
    "after" timestamptz NOT NULL,
    "a.b" text,
    "say ""hi""" text,
    "x,y" smallint,
    "Größe 📏" numeric,
    rate numeric(10, 3),
    hours double precision,
    cost double precision GENERATED ALWAYS AS (rate::double precision * hours) STORED,
    PRIMARY KEY ("Yard Id", "Hull No.", seq, kind)
);
CREATE INDEX ON "Ship Yard"."Work.Orders ""2026""" ("Yard Id", "limit", "Hull No.", seq, kind);

INSERT INTO "Ship Yard"."Work.Orders ""2026"""
SELECT yard, hull, seq, kind, "limit", "order", "after", ab, hi, xy, size, rate, hours
FROM unnest(ARRAY['11111111-1111-4111-8111-111111111111',
                  '22222222-2222-4222-8222-222222222222']::uuid[]) AS yard,
(VALUES
    ('A/1,2', 1, 'hull, welding'::"Ship Yard"."Work Kind", 5, 'b', '2026-05-30 10:00+02'::timestamptz,
        'a', 'say "no"', 1::smallint, 1.50, 10.125, 2.5::double precision),
    ('A/1,2', 1, 'paint "matt"', 5, 'b', '2026-05-30 10:00:00.000001+02', '', NULL, -1, 'NaN', 0, 0),
    ('A/1,2', 2, 'Übergabe', -5, 'B', '0044-03-15 12:00+00 BC', NULL, '', NULL, 'Infinity', -1, 1e300),
    ('50%', -3, '=trials', 2147483647, '', 'infinity', E'line\nbreak', E'\r\n', 0, '-Infinity', 1, 'NaN'),
    ('50%25', -3, '=trials', 0, 'ß', '-infinity', E'\t', '''', 7, 0.000, 2, '-Infinity'),
    ('%2C', 0, 'engine; fitting', 0, 'Z', '294276-12-31 23:59:59.999999+00', '💍', ',', NULL, 1e40, 1, 5e-324),
    ('a b', 0, 'engine; fitting', 1, 'z', '4714-11-24 00:00:00+00 BC', 'null', 'NULL', 3, -0.1, 1, '-0'),
    ('', 0, 'hull, welding', 1, 'É', '2000-01-01', '=1+1', '{}', 4, NULL, NULL, NULL),
    (U&'\0301e', 9, 'hull, welding', 1, 'É', '2000-01-01', '\N', '\.', 4, 12345678901234567890.1, 1, 1)
) AS v (hull, seq, kind, "limit", "order", "after", ab, hi, xy, size, rate, hours);

-- A text key with everything in it that a URL, a token or a list would trip over.
CREATE TABLE "Ship Yard".parts (
    "Yard Id" uuid NOT NULL,
    "Part/No" text NOT NULL,
    maker "Ship Yard"."Call Sign" NOT NULL,
    bin char(4) NOT NULL,
    shelf "char" NOT NULL,
    slot name NOT NULL,
    weight "Ship Yard".tonnage,
    PRIMARY KEY ("Yard Id", "Part/No")
);

INSERT INTO "Ship Yard".parts
SELECT yard, part, maker, bin, shelf, slot, weight
FROM unnest(ARRAY['11111111-1111-4111-8111-111111111111',
                  '22222222-2222-4222-8222-222222222222']::uuid[]) AS yard,
(VALUES
    ('a,b', 'Acme', 'ab', 'x'::"char", 'slot'::name, 1.5),
    ('a%2Cb', 'Acme', 'ab', 'x', 'Slot', NULL),
    ('50% off', 'Acme', 'abcd', ' ', '"quoted" slot', 0),
    ('x/y//z', 'acme', '', '', repeat('n', 63)::name, 99999999999999.999999),
    ('"q"', '', '0', ',', ',', 1),
    ('it''s;--', 'Ω', 'a b', '"', '', 2),
    ('\', 'Ω', 'z', '\', '\', 3),
    ('?&=+#', 'm', 'z', '+', '+', 4),
    (E'line\r\nbreak\t', 'm', 'z', E'\n', E'\n', 5),
    ('💍𝔸', 'm', 'é', '~', 'é', 6),
    (' ', 'm', 'é', '-', ' ', 7),
    ('...', 'm', 'é', '=', '=', 8)
) AS v (part, maker, bin, shelf, slot, weight);

-- Another tenant's kind in the same schema: a number.
CREATE TABLE "Ship Yard"."Berths" (
    "Yard No" bigint NOT NULL,
    quay inet NOT NULL,
    since date NOT NULL,
    sign "Ship Yard".berthed,
    draught real NOT NULL,
    seal bytea NOT NULL,
    mac macaddr NOT NULL,
    open_at time NOT NULL,
    wet boolean NOT NULL,
    net cidr,
    stamp timestamp NOT NULL,
    UNIQUE ("Yard No", quay, since)
);

INSERT INTO "Ship Yard"."Berths"
SELECT yard, quay, since, sign, draught, seal, mac, open_at, wet, net, stamp
FROM unnest(ARRAY[7, -9223372036854775808]::bigint[]) AS yard,
(VALUES
    ('10.0.0.1'::inet, '2026-01-01'::date, 'DL1', 0.1::real, '\x'::bytea, '08:00:2b:01:02:03'::macaddr,
        '00:00'::time, true, '10.0.0.0/8'::cidr, '2026-01-01'::timestamp),
    ('10.0.0.1', '2026-01-02', 'DL1', 'NaN', '\x00ff', '00:00:00:00:00:00', '24:00', false, NULL, 'infinity'),
    ('10.0.0.1/8', 'infinity', '', 'Infinity', '\x41', '08:00:2b:01:02:03', '12:00:00.000001', true,
        '::/0', '-infinity'),
    ('::1', '-infinity', ',', '-Infinity', '\x4100', '08:00:2b:01:02:03', '12:00', true, '::1/128',
        '4714-11-24 00:00:00 BC'),
    ('fe80::1/64', '4714-11-24 BC', ' ', 1e-45, '\xff', 'ff:ff:ff:ff:ff:ff', '12:00', false, NULL,
        '294276-12-31 23:59:59.999999'),
    ('255.255.255.255', '5874897-12-31', '"', 3.4028235e38, '\x22', 'ff:ff:ff:ff:ff:ff', '23:59:59.999999',
        false, NULL, '0001-12-31 23:59:59.5 BC')
) AS v (quay, since, sign, draught, seal, mac, open_at, wet, net, stamp);

-- Types.
CREATE TABLE "Ship Yard".surveys (
    "Yard Id" uuid NOT NULL,
    id smallint NOT NULL,
    kinds "Ship Yard"."Work Kind"[],
    names text[],
    grid integer[],
    numbers numeric[],
    raws json[],
    moments timestamptz[],
    sheet "Ship Yard".sheet,
    signs "Ship Yard"."Call Sign"[],
    raw json,
    parsed jsonb,
    spot "Ship Yard"."Point 3D",
    spots "Ship Yard"."Point 3D"[],
    valid int4range,
    during tstzrange,
    weights nummultirange,
    took interval,
    local_time time,
    zoned_time timetz,
    mac8 macaddr8,
    bits bit(5),
    more_bits bit varying,
    place point,
    area polygon,
    words tsvector,
    wanted tsquery,
    lsn pg_lsn,
    object oid,
    kind regtype,
    PRIMARY KEY ("Yard Id", id)
);

INSERT INTO "Ship Yard".surveys
SELECT yard, v.*
FROM unnest(ARRAY['11111111-1111-4111-8111-111111111111',
                  '22222222-2222-4222-8222-222222222222']::uuid[]) AS yard,
(VALUES
    (1::smallint, ARRAY['hull, welding', NULL, '=trials']::"Ship Yard"."Work Kind"[],
        ARRAY['a', NULL, '', 'NULL', 'q"', '{}', E'\n'], ARRAY[[1, 2], [3, NULL]],
        ARRAY['NaN', 1.50, '-Infinity']::numeric[], ARRAY[E'{"a":\n1}', '" x "', NULL]::json[],
        ARRAY['infinity', '2026-05-30 12:00+02']::timestamptz[],
        E'{\n"deep": [1,\r\n 2.50, "\\u0000"]\n}'::"Ship Yard".sheet,
        ARRAY['DL1', 'a,b']::"Ship Yard"."Call Sign"[], E' [1,\n\n2 ]\r\n'::json,
        '{"b": 1.10, "a": [null, "x\ny"]}'::jsonb,
        ROW(1.50, ARRAY['NaN', 0.1]::double precision[], E'"\n', E'{\n}')::"Ship Yard"."Point 3D",
        ARRAY[ROW(1, NULL, NULL, E'[\r]')]::"Ship Yard"."Point 3D"[], '[1,5)'::int4range,
        '[2026-01-01 00:00+01,infinity)'::tstzrange, '{[1,2),(3.5,)}'::nummultirange,
        '1 year 2 mons -3 days 04:05:06.7'::interval, '24:00'::time, '12:00:00.5+05:30'::timetz,
        '08:00:2b:01:02:03:04:05'::macaddr8, B'10101', B'1', '(1.5,-2)'::point,
        '((0,0),(1,1),(1,0))'::polygon, 'a:1A fat:2 ''q'''::tsvector, 'fat & !rat'::tsquery,
        '16/B374D848'::pg_lsn, 4294967295::oid, 'int4'::regtype),
    (2, '{}', '{}', '{}', '{}', '{}', '{}', 'null', '{}', '"text"', 'null',
        ROW(NULL, NULL, NULL, NULL)::"Ship Yard"."Point 3D",
        '{}', 'empty', '(,)', '{}', '0', '00:00', '00:00+00', '00:00:00:00:00:00:00:00', B'00000', B'',
        '(Infinity,NaN)', '((0,0))', '', '', '0/0', 0, 'text'),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)
) AS v;

-- A partitioned table, whose key has its tenant's column inside.
CREATE TABLE "Ship Yard".log (
    "Yard Id" uuid NOT NULL,
    at timestamptz NOT NULL,
    id integer NOT NULL,
    level smallint NOT NULL,
    line text,
    PRIMARY KEY ("Yard Id", at, id)
) PARTITION BY RANGE (at);
CREATE TABLE "Ship Yard".log_old PARTITION OF "Ship Yard".log FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE "Ship Yard".log_new PARTITION OF "Ship Yard".log FOR VALUES FROM ('2026-01-01') TO (MAXVALUE);

INSERT INTO "Ship Yard".log
SELECT yard, '2025-12-31 12:00+00'::timestamptz + (n / 3) * interval '3 hours', n, n % 4, 'line ' || n
FROM unnest(ARRAY['11111111-1111-4111-8111-111111111111',
                  '22222222-2222-4222-8222-222222222222']::uuid[]) AS yard, generate_series(1, 20) AS n;

-- What everybody may read.
CREATE TABLE "Ship Yard"."Tides" (at time PRIMARY KEY, height numeric(5, 2) NOT NULL, note text);
INSERT INTO "Ship Yard"."Tides" VALUES
    ('00:00', 1.10, 'a'), ('06:12:00.5', -0.20, NULL), ('12:30', 1.10, ''), ('24:00', 2, 'b');

CREATE VIEW "Ship Yard"."Open Orders" WITH (security_invoker = true) AS
    SELECT "Yard Id", "Hull No." AS hull, seq, kind, "order" AS "What?", "after"::date AS due
    FROM "Ship Yard"."Work.Orders ""2026""" WHERE "limit" > 0;

ALTER TABLE "Ship Yard"."Work.Orders ""2026""" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Ship Yard".parts ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Ship Yard"."Berths" ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Ship Yard".surveys ENABLE ROW LEVEL SECURITY;
ALTER TABLE "Ship Yard".log ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON "Ship Yard"."Work.Orders ""2026""" USING ("Yard Id" = (SELECT "Ship Yard".yard()::uuid));
CREATE POLICY own ON "Ship Yard".parts USING ("Yard Id" = (SELECT "Ship Yard".yard()::uuid));
CREATE POLICY own ON "Ship Yard"."Berths" USING ("Yard No" = (SELECT "Ship Yard".yard()::bigint));
CREATE POLICY own ON "Ship Yard".surveys USING ("Yard Id" = (SELECT "Ship Yard".yard()::uuid));
CREATE POLICY own ON "Ship Yard".log USING ("Yard Id" = (SELECT "Ship Yard".yard()::uuid));

GRANT USAGE ON SCHEMA "Ship Yard" TO PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA "Ship Yard" TO PUBLIC;
