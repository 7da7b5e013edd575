"""What libssh's client does through the bastion: HOST PORT USER HOST_KEY KEY_FILE LOGIN TARGET TARGET_KEY WHAT…

TARGET is "-", or a second connection, as LOGIN, goes to its port 22 over a "direct-tcpip" channel of the first. WHAT is one of
"exec COMMAND" (standard input goes along), "put FROM TO", "get FROM TO".
"""

import os
import socket
import sys
import threading
import time

from ssh import options
from ssh.exceptions import SSHError
from ssh.key import import_privkey_file
from ssh.session import Session

host, port, user, host_key, key_file, login, target, target_key, what, *words = sys.argv[1:]
SIZE = 30_000


def connect(sock, known, name, prove):
    session = Session()
    session.options_set(options.HOST, "target")
    session.options_set(options.USER, name)
    session.set_socket(sock)
    session.connect()
    if session.get_server_publickey().export_pubkey_base64().decode() != known.split()[1]:
        sys.exit("the host key is not the known one")
    if prove(session) != 0:
        sys.exit("permission denied")
    return session


def carry(channel, sock):
    """Carries bytes between a forwarded connection and a socket. A session of libssh is one thread's, so it polls."""
    sock.setblocking(False)
    while not channel.is_eof():
        size, data = channel.read_nonblocking()
        if size > 0:
            sock.setblocking(True)
            sock.sendall(data)
            sock.setblocking(False)
        try:
            data = sock.recv(SIZE)
            if not data:
                break
            channel.write(data)
        except BlockingIOError:
            if size <= 0:
                time.sleep(0.002)
    sock.close()


def execute(session, command):
    channel = session.channel_new()
    channel.open_session()
    channel.request_exec(command)
    try:
        channel.write(sys.stdin.buffer.read())
        channel.send_eof()
    except SSHError:
        pass  # it was closed already; what it said is read below
    for out, is_stderr in ((sys.stdout, False), (sys.stderr, True)):
        size, data = channel.read(is_stderr=is_stderr)
        while size > 0:
            out.buffer.write(data)
            size, data = channel.read(is_stderr=is_stderr)
    return channel.get_exit_status()


def copy(session, source, goal):
    files = session.sftp_new()
    files.init()
    if what == "put":
        with open(source, "rb") as here, files.open(goal, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644) as there:
            while data := here.read(SIZE):
                there.write(data)
    else:
        with files.open(source, os.O_RDONLY, 0) as there, open(goal, "wb") as here:
            for size, data in there:
                here.write(data)
    return 0


session = connect(
    socket.create_connection((host, int(port)), 20),
    host_key,
    user,
    lambda session: session.userauth_publickey(import_privkey_file(key_file)),
)
if target != "-":
    outer, (near, far) = session, socket.socketpair()
    forward = outer.channel_new()
    forward.open_forward(target, 22, "127.0.0.1", 0)
    threading.Thread(target=carry, args=(forward, far), daemon=True).start()
    session = connect(near, target_key, login, lambda session: session.userauth_none())
code = execute(session, *words) if what == "exec" else copy(session, *words)
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)  # the other thread may be inside libssh
