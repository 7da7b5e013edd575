"""Logs in with paramiko and runs a command: HOST PORT USER HOST_KEY_LINE (key FILE | password WORD) COMMAND."""

import base64
import sys

import paramiko

host, port, user, host_key, how, secret, command = sys.argv[1:]
kind, blob = host_key.split()[:2]
client = paramiko.SSHClient()
key = paramiko.PKey.from_type_string(kind, base64.b64decode(blob))
client.get_host_keys().add(f"[{host}]:{port}", kind, key)
proof = {"key_filename": secret} if how == "key" else {"password": secret}
client.connect(host, int(port), user, look_for_keys=False, allow_agent=False, timeout=20, **proof)
_, stdout, stderr = client.exec_command(command, timeout=20)
sys.stdout.buffer.write(stdout.read())
sys.stderr.buffer.write(stderr.read())
code = stdout.channel.recv_exit_status()
client.close()
sys.exit(code)
