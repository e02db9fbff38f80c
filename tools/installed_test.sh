#!/bin/sh
# Indexes a document with an installed program and searches for it: tools/installed_test.sh COMMAND MODELS
set -eu

command=$1 models=$(realpath "$2")
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
export NEARFIELD_HOME="$home" HF_HUB_OFFLINE=1
ln -s "$models" "$home/models"
$command --version
printf 'id,title,content\n1,Passwords,Choose a new password on the sign-in page.\n2,Refunds,We refund within a week.\n' >"$home/articles.csv"
$command --quiet index "$home/articles.csv"
first=$($command search "forgot my login" -k 1)
case $first in
    *Passwords*) echo "$first" ;;
    *) echo "unexpected answer: $first"; exit 1 ;;
esac
