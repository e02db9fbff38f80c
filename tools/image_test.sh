#!/bin/sh
# Runs the program as in the image of deploy/Dockerfile, without a container engine: a root file system with the same
# files, mounted read-only, and the same user, environment and command.
#
#     tools/image_test.sh PROGRAM MODELS [SUITE]
#
# MODELS is a models directory with all-MiniLM-L6-v2. Needs root, debootstrap and Debian's mirror.
set -eu

[ $# -ge 2 ] || { sed -n '2,7p' "$0"; exit 2; }
program=$(realpath "$1") models=$(realpath "$2") suite=${3:-trixie}
dockerfile=$(dirname "$0")/../deploy/Dockerfile
work=$(mktemp -d)
root=$work/root
server=
stop() {
    [ -z "$server" ] || kill "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$work/volume/data/server.json")" "$server" 2>/dev/null || true
    umount "$root/proc" "$root/var/lib/nearfield" "$root" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap stop EXIT
fail() { echo "FAILED: $1"; exit 1; }

debootstrap --variant=minbase "$suite" "$work/files" >"$work/log" 2>&1 || { tail "$work/log"; exit 1; }
install -m 0755 "$program" "$work/files/usr/local/bin/nearfield"
# The RUN instruction of the last stage, with its line continuations.
run=$(sed -n '/^FROM debian/,$p' "$dockerfile" | sed -n '/^RUN /,/[^\\]$/p' | sed 's/^RUN //; s/\\$//' | tr -d '\n')
chroot "$work/files" sh -ec "$run"
environment=$(sed -n 's/^ENV //p' "$dockerfile")
user=$(sed -n 's/^USER //p' "$dockerfile")
mkdir "$root" "$work/volume"
mount --bind "$work/files" "$root"
mount -o remount,bind,ro "$root"
chown "$user:$user" "$work/volume"
mount --bind "$work/volume" "$root/var/lib/nearfield"
mount -t proc proc "$root/proc"
cp -r "$models" "$work/volume/models"
chown -R "$user" "$work/volume/models"
inside() {
    # shellcheck disable=SC2086
    chroot "$root" env -i PATH=/usr/local/bin:/usr/bin:/bin $environment "$@"
}
as_user() { inside setpriv --reuid "$user" --regid "$user" --clear-groups "$@"; }

if as_user touch /usr/local/bin/x 2>/dev/null; then fail "the root file system can be written to"; fi
if as_user nearfield serve 2>"$work/refused.log"; then fail "the server started without a key"; fi
grep -qi "key" "$work/refused.log" || fail "the reason names no key: $(cat "$work/refused.log")"
echo "without a key: $(tail -1 "$work/refused.log")"

as_user env NEARFIELD_API_KEY=a-key-for-testing-the-image NEARFIELD_LISTEN=0.0.0.0:18999 nearfield serve 2>"$work/server.log" &
server=$!
tries=0
until as_user nearfield healthcheck 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt 120 ] || { cat "$work/server.log"; fail "the server is not ready"; }
    sleep 0.5
done
printf 'id,title,content\n1,Passwords,Choose a new password on the sign-in page.\n' >"$work/volume/a.csv"
as_user env NEARFIELD_API_KEY=a-key-for-testing-the-image nearfield index /var/lib/nearfield/a.csv
as_user env NEARFIELD_API_KEY=a-key-for-testing-the-image nearfield search "forgot my login" | grep -q Passwords || fail "nothing is found"
kill -TERM "$(sed -n 's/.*"pid":\([0-9]*\).*/\1/p' "$work/volume/data/server.json")"
wait "$server" || fail "the server ended with status $?"
server=
echo "passed"
