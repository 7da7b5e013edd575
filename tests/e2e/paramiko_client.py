"""What paramiko does through the bastion: HOST PORT USER HOST_KEY KEY_FILE LOGIN TARGET TARGET_KEY WHAT…

TARGET is "-", or a second connection, as LOGIN, goes to its port 22 over a "direct-tcpip" channel of the first. WHAT is one of
"exec COMMAND" (standard input goes along), "put FROM TO", "get FROM TO".
"""

import base64
import socket
import sys

import paramiko

host, port, user, host_key, key_file, login, target, target_key, what, *words = sys.argv[1:]


def connect(sock, known, name, prove):
    transport = paramiko.Transport(sock)
    kind, blob = known.split()[:2]
    transport.connect(hostkey=paramiko.PKey.from_type_string(kind, base64.b64decode(blob)))
    prove(transport, name)
    return transport


transport = connect(
    socket.create_connection((host, int(port)), 20),
    host_key,
    user,
    lambda transport, name: transport.auth_publickey(name, paramiko.PKey.from_path(key_file)),
)
if target != "-":
    stream = transport.open_channel("direct-tcpip", (target, 22), ("127.0.0.1", 0), timeout=20)
    outer, transport = transport, connect(stream, target_key, login, lambda transport, name: transport.auth_none(name))
code = 0
if what == "exec":
    channel = transport.open_session(timeout=20)
    channel.exec_command(*words)
    try:
        channel.sendall(sys.stdin.buffer.read())
        channel.shutdown_write()
    except OSError:
        pass  # it was closed already; what it said is read below
    sys.stdout.buffer.write(channel.makefile("rb").read())
    sys.stderr.buffer.write(channel.makefile_stderr("rb").read())
    code = channel.recv_exit_status()
else:
    files = transport.open_sftp_client()
    (files.put if what == "put" else files.get)(*words)
transport.close()
sys.exit(code)
