"""TLS for a program that has none: a TLS listener that forwards to a TCP one.

SIPp as Debian builds it speaks no TLS, so Python's ssl module (OpenSSL) does it for it.

    tls_front.py CERTIFICATE KEY HOST PORT

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


async def main(certificate, key, host, port):
    identity = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    identity.load_cert_chain(certificate, key)

    async def pipe(reader, writer):
        far_reader, far_writer = await asyncio.open_connection(host, port)
        await asyncio.gather(forward(reader, far_writer), forward(far_reader, writer))

    server = await asyncio.start_server(pipe, "127.0.0.1", 0, ssl=identity)
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
