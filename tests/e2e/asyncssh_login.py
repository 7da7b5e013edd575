"""Logs in with asyncssh and runs a command: HOST PORT USER HOST_KEY_LINE (key FILE | password WORD) COMMAND.

Prints the signal that ended the command, if one did.
"""

import asyncio
import sys

import asyncssh


async def main() -> int:
    host, port, user, host_key, how, secret, command = sys.argv[1:]
    proof = {"client_keys": [secret]} if how == "key" else {"client_keys": None, "password": secret}
    known = ([asyncssh.import_public_key(host_key)], [], [])
    async with asyncssh.connect(
        host, int(port), username=user, known_hosts=known, agent_path=None, config=None, **proof
    ) as connection:
        result = await connection.run(command, encoding=None)
    sys.stdout.buffer.write(result.stdout)
    sys.stderr.buffer.write(result.stderr)
    if result.exit_signal:
        print("signal", result.exit_signal[0])
    return result.exit_status or 0


sys.exit(asyncio.run(main()))
