#!/bin/sh
# Installs, upgrades, removes and purges the Debian package in a root made by debootstrap, and runs the service once.
#
#     tools/deb_test.sh PACKAGE.deb MODELS [SUITE]
#
# MODELS is a models directory with all-MiniLM-L6-v2. Needs root, debootstrap and Debian's mirror. There is no systemd in
# the root, so the unit's command is started as the unit's user.
set -eu

[ $# -ge 2 ] || { sed -n '2,7p' "$0"; exit 2; }
package=$(realpath "$1") models=$(realpath "$2") suite=${3:-bookworm}
work=$(mktemp -d)
root=$work/root
server=
stop() {
    [ -z "$server" ] || kill "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$root/var/lib/nearfield/data/server.json")" "$server" 2>/dev/null || true
    umount "$root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap stop EXIT
fail() { echo "FAILED: $1"; exit 1; }
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
as_service() { inside setpriv --reuid nearfield --regid nearfield --clear-groups "$@"; }

debootstrap --variant=minbase --include=adduser "$suite" "$root" >"$work/log" 2>&1 || { tail "$work/log"; exit 1; }
mount -t proc proc "$root/proc"
cp "$package" "$root/nearfield.deb"

echo "install"
inside dpkg --install /nearfield.deb >/dev/null
inside nearfield --version
inside test -f /usr/share/man/man1/nearfield-index.1.gz || fail "there is no manual page"
settings=$(inside stat -c '%U:%G %a' /etc/nearfield/nearfield.toml)
[ "$settings" = "root:nearfield 640" ] || fail "the settings are $settings"
data=$(inside stat -c '%U %a' /var/lib/nearfield)
[ "$data" = "nearfield 700" ] || fail "the data directory is $data"

echo "run the service"
cp -r "$models" "$root/var/lib/nearfield/models"
inside chown -R nearfield: /var/lib/nearfield/models
# The port is chosen by the system.
echo 'listen = "127.0.0.1:0"' >>"$root/etc/nearfield/nearfield.toml"
command=$(sed -n 's/^ExecStart=//p' "$root"/usr/lib/systemd/system/nearfield.service "$root"/lib/systemd/system/nearfield.service 2>/dev/null | head -1)
# shellcheck disable=SC2086
as_service $command 2>"$work/service.log" &
server=$!
tries=0
until as_service nearfield healthcheck --home /var/lib/nearfield 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 120 ] || { cat "$work/service.log"; fail "the service is not ready"; }
    sleep 0.5
done
printf 'id,title,content\n1,Passwords,Choose a new password on the sign-in page.\n' >"$root/tmp/a.csv"
as_service nearfield index /tmp/a.csv --home /var/lib/nearfield
as_service nearfield search "forgot my login" --home /var/lib/nearfield | grep -q Passwords || fail "nothing is found"
kill -TERM "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$root/var/lib/nearfield/data/server.json")"
wait "$server" || fail "the service ended with status $?"
server=

echo "upgrade"
inside dpkg --install /nearfield.deb >/dev/null
grep -q '127.0.0.1:0' "$root/etc/nearfield/nearfield.toml" || fail "the settings were replaced"
as_service nearfield search "forgot my login" --home /var/lib/nearfield | grep -q Passwords || fail "a document is lost"

echo "remove"
inside dpkg --remove nearfield >/dev/null
inside test ! -e /usr/bin/nearfield || fail "the program is left"
inside test -d /var/lib/nearfield/data || fail "removing deleted the documents"
inside test -f /etc/nearfield/nearfield.toml || fail "removing deleted the settings"

echo "purge"
inside dpkg --purge nearfield >/dev/null
for path in /var/lib/nearfield /etc/nearfield; do
    inside test ! -e $path || fail "$path is left"
done
! inside getent passwd nearfield >/dev/null || fail "the user is left"
echo "passed"
