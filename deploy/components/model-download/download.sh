#!/bin/sh
# download.sh LIST FOLDER: fills FOLDER with the files that LIST/SHA256SUMS names ("SUM  NAME" a line), from LIST/url/NAME.
# What is there and right stays, what was cut off goes on where it ended, and FOLDER/NAME appears only once its sum is right.
# For the init container of this component; needs sh, curl and sha256sum.
set -eu
list=$1
folder=$2
url=$(cat "$list/url")
mkdir -p "$folder"

# right FILE SUM
right() { [ -f "$1" ] && echo "$2  $1" | sha256sum -c >/dev/null 2>&1; }

# fetch NAME FILE [OPTIONS]
fetch() {
  from=${url%/}/$1
  to=$2
  shift 2
  curl -sS --fail --location --retry 5 --retry-connrefused --connect-timeout 20 "$@" -o "$to" "$from"
}

while read -r sum name; do
  case $sum in '' | '#'*) continue ;; esac
  case $name in '' | /* | *..*) echo "not a file of the model: '$name'" >&2; exit 1 ;; esac
  file=$folder/$name
  if right "$file" "$sum"; then
    echo "$name is there"
    continue
  fi
  mkdir -p "$(dirname "$file")"
  echo "downloading $name"
  if [ -f "$file.part" ] && ! right "$file.part" "$sum"; then
    # 33 and 22 (HTTP 416): the server cannot go on from there. Anything else is for the next try.
    fetch "$name" "$file.part" -C - || case $? in 33 | 22) ;; *) exit 1 ;; esac
    right "$file.part" "$sum" || rm -f "$file.part"
  fi
  [ -f "$file.part" ] || fetch "$name" "$file.part"
  if ! right "$file.part" "$sum"; then
    echo "$name has another SHA-256 than $sum: $(sha256sum <"$file.part" | cut -d' ' -f1)" >&2
    rm -f "$file.part"
    exit 1
  fi
  mv "$file.part" "$file"
done <"$list/SHA256SUMS"
