"""Logs in with paramiko, with a key or a password and then a code: HOST PORT USER HOST_KEY_LINE (key FILE | password WORD)
COMMAND CODE. Prints which methods the server wanted after the first factor."""

import base64
import socket
import sys

import paramiko

host, port, user, host_key, how, secret, command, code = sys.argv[1:]
kind, blob = host_key.split()[:2]
transport = paramiko.ServiceRequestingTransport(socket.create_connection((host, int(port)), 20))
transport.connect(hostkey=paramiko.PKey.from_type_string(kind, base64.b64decode(blob)))
if how == "key":
    wanted = transport.auth_publickey(user, paramiko.PKey.from_path(secret))
else:
    wanted = transport.auth_password(user, secret, fallback=False)
print("then", *wanted)
transport.auth_interactive(user, lambda title, instructions, prompts: [code for _prompt in prompts])
channel = transport.open_session(timeout=20)
channel.exec_command(command)
sys.stdout.flush()
sys.stdout.buffer.write(channel.makefile("rb").read())
code = channel.recv_exit_status()
transport.close()
sys.exit(code)
