"""Feeds that take their time: a row every 5 ms.

`brief` is over in two seconds, `endless` not within any test, and `quick` is a table.
"""

from typing import Final

from tests.support.servers import LOGIN

SCHEMA: Final = f"""
CREATE SCHEMA slow;
CREATE VIEW slow.brief AS
    SELECT n, pg_sleep(0.005) IS NULL AS awake FROM generate_series(1, 400) AS n ORDER BY n;
CREATE VIEW slow.endless AS
    SELECT n, pg_sleep(0.005) IS NULL AS awake FROM generate_series(1, 100000) AS n ORDER BY n;
CREATE TABLE slow.quick (n int PRIMARY KEY);
INSERT INTO slow.quick SELECT generate_series(1, 1000);
GRANT USAGE ON SCHEMA slow TO {LOGIN};
GRANT SELECT ON ALL TABLES IN SCHEMA slow TO {LOGIN};
"""
DATASETS: Final = "".join(
    f'[{name}]\nrelation = "slow.{name}"\nkey = ["n"]\nshared = true\nnot_null = ["n"]\n'
    for name in ("brief", "endless", "quick")
)
