# The echo of the Python package websockets, for wspoll conform. Argument: the
# port, 0 for a free one. Prints the URL; ends on SIGTERM. Settings are those of
# the library, with compression; but messages may have up to 32 MiB, not 1 MiB.
import asyncio
import signal
import sys

import websockets


async def echo(socket, path=None):
    async for message in socket:
        await socket.send(message)


async def main():
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set_result, None)
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=32 << 20, ping_interval=None) as server:
        print(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
        await stop


asyncio.run(main())
