"""Keep a copy of a feed in SQLite: FEEDSVC_TOKEN=… python sync.py URL FILE KEYCOLUMN…

URL is the feed's, with the columns and filters that are wanted. The table `rows` has rows as JSON.
"""

import json
import os
import random
import sqlite3
import sys
import time
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import Request, urlopen

url, file, *key = sys.argv[1:]
headers = {"Authorization": f"Bearer {os.environ['FEEDSVC_TOKEN']}"}
copy = sqlite3.connect(file)
copy.executescript("""CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, row TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), cursor TEXT);""")


def follow(cursor=None):
    """Apply a delta, or without a cursor an export: all of it and its cursor, or nothing."""
    given = f"since={cursor}&wait=20" if cursor else "frames=1&format=ndjson"
    request = Request(f"{url}{'&' if '?' in url else '?'}{given}", headers=headers)
    with copy, urlopen(request, timeout=60) as lines:
        if not cursor:
            copy.execute("DELETE FROM rows")
        for line in lines:
            ((kind, data),) = json.loads(line).items()
            ident = json.dumps([data.get(name) for name in key])
            if kind in ("row", "upsert"):
                copy.execute("REPLACE INTO rows VALUES (?, ?)", (ident, json.dumps(data)))
            elif kind == "delete":
                copy.execute("DELETE FROM rows WHERE key = ?", (ident,))
            elif kind in ("end", "sync"):
                return copy.execute("REPLACE INTO place VALUES (1, ?)", (data["cursor"],))
        raise ConnectionError("the answer broke off")


pause = 1
while True:
    try:
        follow(*(copy.execute("SELECT cursor FROM place").fetchone() or ()))
        pause = 1
    except (OSError, HTTPException, ValueError) as error:
        print(error, file=sys.stderr)
        if isinstance(error, HTTPError) and error.code == 409:
            with copy:  # the rows stay until the new export is whole
                copy.execute("DELETE FROM place")
        time.sleep(pause * random.random())
        pause = min(2 * pause, 32)
