"""A process that updates one row 200 times a second until its standard input ends.

`python -m tests.performance.steady_writer URL ID`: the database's URL as an owner, a client's id.
"""

import asyncio
import sys
from typing import Final

import asyncpg

WRITES_A_SECOND: Final = 200
_CHANGE: Final = "UPDATE wedding.clients SET notes = $1 WHERE id = $2"


async def main(url: str, row: str) -> None:
    loop = asyncio.get_running_loop()
    connection = await asyncpg.connect(url)
    ended = loop.run_in_executor(None, sys.stdin.read)
    began, number = loop.time(), 0
    while not ended.done():
        number += 1
        await connection.execute(_CHANGE, str(number), int(row))
        await asyncio.sleep(max(0.0, began + number / WRITES_A_SECOND - loop.time()))
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
