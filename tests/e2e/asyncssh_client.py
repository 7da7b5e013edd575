"""What asyncssh does through the bastion: HOST PORT USER HOST_KEY KEY_FILE LOGIN TARGET TARGET_KEY WHAT…

TARGET is "-", or a second connection, as LOGIN, goes to its port 22 through the first. WHAT is one of "exec COMMAND" (standard
input goes along), "put FROM TO", "get FROM TO".
"""

import asyncio
import sys

import asyncssh


async def main() -> int:
    host, port, user, host_key, key_file, login, target, target_key, what, *words = sys.argv[1:]
    usual = {"agent_path": None, "config": None}
    known = ([asyncssh.import_public_key(host_key)], [], [])
    connection = await asyncssh.connect(
        host, int(port), username=user, known_hosts=known, client_keys=[key_file], **usual
    )
    outer = connection
    if target != "-":
        known = ([asyncssh.import_public_key(target_key)], [], [])
        connection = await outer.connect_ssh(target, 22, username=login, known_hosts=known, client_keys=None, **usual)
    code = 0
    if what == "exec":
        process = await connection.create_process(*words, encoding=None)
        try:
            process.stdin.write(sys.stdin.buffer.read())
            process.stdin.write_eof()
        except OSError:
            pass  # it was closed already; what it said is read below
        result = await process.wait()
        sys.stdout.buffer.write(result.stdout)
        sys.stderr.buffer.write(result.stderr)
        code = result.exit_status
    else:
        async with connection.start_sftp_client() as files:
            await (files.put if what == "put" else files.get)(*words)
    connection.close()
    outer.close()
    await outer.wait_closed()
    return code


sys.exit(asyncio.run(main()))
