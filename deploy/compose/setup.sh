# Makes a person, a target and a grant, and writes what to type. Does nothing that was done before.
sallyport ca user > /target/user_ca.pub
until [ -s /target/host_key.pub ]; do sleep 1; done

[ -e /try/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -C alice -f /try/id_ed25519
cat > /tmp/access.yaml <<END
version: 1
people:
  alice:
    organisation: Example vendor
    roles: [engineer]
    keys: ["$(cat /try/id_ed25519.pub)"]
targets:
  web-1:
    address: web-1:22
    labels: {env: demo}
    logins: {demo: {credential: certificate}}
    host_keys: ["$(cut -d' ' -f1,2 /target/host_key.pub)"]
END
sallyport apply --yes -f /tmp/access.yaml

if ! sallyport person show admin > /dev/null 2>&1; then
    head -c 12 /dev/urandom | base64 > /try/password
    sallyport person add admin --role admin,reviewer --password-file /try/password
fi
if [ -z "$(sallyport grant ls --output jsonl)" ]; then
    sallyport grant new alice web-1 --login demo --for 8h --reason 'to try Sallyport' > /dev/null
fi

sallyport known-hosts > /try/known_hosts
cat > /try/README <<END
As alice, on the target web-1:
  ssh -p 2222 -i try/id_ed25519 -o IdentitiesOnly=yes -o UserKnownHostsFile=try/known_hosts alice+demo@web-1@localhost

What was done, for admin with the password $(cat /try/password):
  https://localhost:8443/
END
chown -R --reference=/try /try
cat /try/README
