# A host to try: waits for the bastion's authority, then lets in whom it certifies.
set -eu
[ -e /target/host_key ] || ssh-keygen -q -t ed25519 -N '' -f /target/host_key
until [ -s /target/user_ca.pub ]; do sleep 1; done
cp /target/host_key /etc/ssh/ssh_host_ed25519_key
cp /target/user_ca.pub /etc/ssh/user_ca.pub
chmod 600 /etc/ssh/ssh_host_ed25519_key
exec /usr/sbin/sshd -D -e -o HostKey=/etc/ssh/ssh_host_ed25519_key -o TrustedUserCAKeys=/etc/ssh/user_ca.pub \
    -o AuthorizedKeysFile=none -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o PermitRootLogin=no
