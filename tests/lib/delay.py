#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A TCP relay that takes its time, for paths that are slow and not lost.

    delay.py LISTEN:PORT TO:PORT [LISTEN:PORT TO:PORT...]

says "ready" and reads numbers from its standard input, a line each: what comes
from the clients from then on is passed on so many ms later, in order; what
comes back, at once.  It ends when its standard input does.
"""
import asyncio
import sys

delay_s = 0.0


async def pass_on(reader, writer, late):
    """Bytes are read at once, so that each waits for itself only."""
    queue = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def write():
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0, due - loop.time()))
            if not data:
                break
            writer.write(data)
            await writer.drain()

    writing = asyncio.create_task(write())
    try:
        while data := await reader.read(1 << 16):
            queue.put_nowait((loop.time() + (delay_s if late else 0), data))
    except OSError:
        pass
    queue.put_nowait((0, b""))
    try:
        await writing
    except OSError:
        pass
    writer.close()


def relay(host, port):
    async def serve(reader, writer):
        try:
            there = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            pass_on(reader, there[1], True), pass_on(there[0], writer, False)
        )

    return serve


async def main(args):
    global delay_s
    for at, to in zip(args[::2], args[1::2]):
        host, port = at.rsplit(":", 1)
        there = to.rsplit(":", 1)
        await asyncio.start_server(relay(there[0], int(there[1])), host, port)
    print("ready", flush=True)
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin
    )
    while line := await stdin.readline():
        delay_s = int(line) / 1000


asyncio.run(main(sys.argv[1:]))
