"""Logs in with asyncssh and runs a command: HOST PORT USER HOST_KEY_LINE (key FILE | password WORD) COMMAND [CODE].

Prints the signal that ended the command, if one did. CODE answers what asks for a code.
"""

import asyncio
import sys

import asyncssh


class Person(asyncssh.SSHClient):
    """Answers what the server asks."""

    def __init__(self, word, code):
        self.word, self.code = word, code

    def kbdint_auth_requested(self):
        return "" if self.code else None

    def kbdint_challenge_received(self, name, instructions, lang, prompts):
        return [self.code if "code" in prompt else self.word for prompt, _echo in prompts]


async def main() -> int:
    host, port, user, host_key, how, secret, command, *code = sys.argv[1:]
    proof = {"client_keys": [secret]} if how == "key" else {"client_keys": None, "password": secret}
    known = ([asyncssh.import_public_key(host_key)], [], [])
    person = lambda: Person(secret, code[0] if code else None)
    async with asyncssh.connect(
        host, int(port), username=user, known_hosts=known, agent_path=None, config=None, client_factory=person, **proof
    ) as connection:
        result = await connection.run(command, encoding=None)
    sys.stdout.buffer.write(result.stdout)
    sys.stderr.buffer.write(result.stderr)
    if result.exit_signal:
        print("signal", result.exit_signal[0])
    return result.exit_status or 0


sys.exit(asyncio.run(main()))
