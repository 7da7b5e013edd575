"""A target that asks for the password by "keyboard-interactive" (RFC 4256) and by nothing else: PASSWORD.

Prints its port and its host key, and serves until its standard input ends.
"""

import asyncio
import sys

import asyncssh

PASSWORD = sys.argv[1]


class Server(asyncssh.SSHServer):
    def begin_auth(self, username):
        return True

    def public_key_auth_supported(self):
        return False

    def password_auth_supported(self):
        return False

    def kbdint_auth_supported(self):
        return True

    def get_kbdint_challenge(self, username, lang, submethods):
        return "", "", "", [("Password: ", False)]

    def validate_kbdint_response(self, username, responses):
        return list(responses) == [PASSWORD]


async def run(process):
    process.stdout.write(f"in by prompt: {process.command}\n")
    process.exit(0)


async def main():
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[key], process_factory=run)
    line = key.export_public_key().decode().strip()
    print(server.sockets[0].getsockname()[1], line, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


asyncio.run(main())
