#!/bin/sh
# Loads a model file and checks it. Usage: sluice-fetch-model URL SHA256 FILE
# FETCH_TOKEN: bearer token for URL. A file that is there with this checksum is kept, and then no network is needed.
set -eu
[ $# -eq 3 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
url=$1 sum=$2 file=$3

fits() { [ -f "$1" ] && echo "$sum  $1" | sha256sum --check --status; }
if fits "$file"; then
  echo "$file is there"
  exit
fi
part=$file.part.$$
trap 'rm -f "$part"' EXIT
# The token goes through standard input: arguments can be seen by others.
{ [ -z "${FETCH_TOKEN:-}" ] || printf 'Authorization: Bearer %s\n' "$FETCH_TOKEN"; } |
  curl --fail --silent --show-error --location --retry 5 --connect-timeout 20 --header @- --output "$part" "$url"
if ! fits "$part"; then
  echo "$url: the file has the checksum $(sha256sum <"$part" | cut -d' ' -f1), expected is $sum" >&2
  exit 1
fi
mv "$part" "$file"
