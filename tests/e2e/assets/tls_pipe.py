"""TLS for a program that has none: forwards TCP connections to a TLS listener.

SIPp as Debian builds it speaks no TLS, so Python's ssl module (OpenSSL) does it for it. The
certificate is checked against the one given.

    tls_pipe.py HOST PORT CERTIFICATE

Prints "listening PORT" and runs until it is killed.
"""

import asyncio
import ssl
import sys


async def forward(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main(host, port, certificate):
    trust = ssl.create_default_context(cafile=certificate)
    # The certificate of a first start names the host of the settings, not the port's address.
    trust.check_hostname = False

    async def pipe(reader, writer):
        far_reader, far_writer = await asyncio.open_connection(host, port, ssl=trust)
        await asyncio.gather(forward(reader, far_writer), forward(far_reader, writer))

    server = await asyncio.start_server(pipe, "127.0.0.1", 0)
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
