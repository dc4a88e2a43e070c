#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the packages that packaging/build.sh has made in a Debian of their own, which has no more than they need, uses them
# there, and removes them: first those for Debian, then those for Fedora.
#
#   packaging/clean.sh PACKAGES TREE
#
# PACKAGES has debian/, rpm/ and the source package, TREE is where the Debian goes: a folder that is new, with TREE.state beside
# it. The last line has the sums.
# shellcheck disable=SC2016 # what is quoted is for the shell inside
set -euo pipefail
packages=$(realpath "$1") tree=$(realpath -m "$2")
state=$tree.state
export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
passed=0 failed=0

try() { # WHAT COMMAND...
  local status=0
  "${@:2}" </dev/null || status=$?
  if [ "$status" = 0 ]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
  if [ "$status" = 0 ]; then echo "clean: $1: passed"; else echo "clean: $1: failed (status $status)"; fi
}

# Where mounts are refused there is no /proc.
inside() { # COMMAND...
  local into=(chroot "$tree")
  if unshare --mount --pid --fork true 2>/dev/null; then
    into=(unshare --mount --pid --fork --root="$tree" --mount-proc)
  fi
  "${into[@]}" env -i PATH="$PATH" LC_ALL=C HOME=/root PYTHONDONTWRITEBYTECODE=1 "$@"
}

fedora() { # COMMAND...: with the tree's database of RPMs
  "$1" --root "$tree" --dbpath /var/lib/rpm "${@:2}"
}

# What the packages depend on, and a compiler.
make_tree() {
  local needs=libjansson4,libsmartcols1,libxxhash0,python3,gcc,libc6-dev,pkg-config mirrors=() file suite
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/{debian,ubuntu}.sources; do
    if [ -e "$file" ]; then mirrors+=("$file"); fi
  done
  suite=$(. /etc/os-release && echo "$VERSION_CODENAME") &&
    mmdebstrap --quiet --variant=minbase --include="$needs" "$suite" "$tree" "${mirrors[@]}"
}

# The loader looks in Fedora's folder, too.
fill_tree() {
  echo /usr/lib64 >"$tree/etc/ld.so.conf.d/lib64.conf"
  mkdir -p "$state" "$tree/srv/source" "$tree/srv/debian" "$tree/srv/rpm"
  tar -xf "$packages"/drowse-*.tar.xz -C "$tree/srv/source" --strip-components=1 --wildcards '*/README.md' '*/packaging/debian/tests'
  cp "$packages"/debian/*.deb "$tree/srv/debian"
  cp "$packages"/rpm/*.rpm "$tree/srv/rpm"
  rm -f "$tree"/srv/debian/*-dbgsym_*.deb "$tree"/srv/rpm/*.src.rpm
  fedora rpmdb --initdb
  inside ldconfig
}

# Every file with its mode, owner and contents; without what package managers write down of their own work.
list() { # NAME
  local others=(-path ./proc -o -path ./tmp -o -path ./srv -o -path './var/lib/dpkg/[l-z]*' -o -path ./var/lib/rpm
    -o -path ./var/log -o -path ./var/cache/ldconfig)
  (
    cd "$tree"
    find . -xdev \( "${others[@]}" \) -prune -o -printf '%p %y%m %U:%G %l\n'
    find . -xdev \( "${others[@]}" \) -prune -o -type f -print0 | xargs -0 sha256sum
  ) | sort >"$state/$1"
}

nothing_left() { # OF
  list "after-$1" && diff "$state/before-$1" "$state/after-$1"
}

# What autopkgtest runs (packaging/debian/tests), in an empty folder, with what is installed and README.md.
package_test() { # NAME
  inside sh -c 'AUTOPKGTEST_TMP=$(mktemp -d) && export AUTOPKGTEST_TMP PKG_CONFIG_PATH=/usr/lib64/pkgconfig &&
    cd /srv/source && "packaging/debian/tests/$0"' "$1"
}

# A page of section 3 shows its own name, wherever it leads.
manual_pages() {
  local page name count=0
  cd "$tree/usr/share/man" || return
  for page in man3/*[dD][rR][oO][wW][sS][eE]*.gz; do
    name=${page#man3/} name=${name%.3.gz}
    mandoc -T ascii "$page" | col -b >"$state/page"
    grep -qiwF -e "$name" "$state/page" || { echo "$page does not name $name"; return 1; }
    count=$((count + 1))
  done
  echo "$count pages"
  [ "$count" -gt 1 ]
}

use() { # WHOSE
  local name
  for name in compile program python; do try "$1 test $name" package_test "$name"; done
  try "$1 manual pages" manual_pages
}

# Packages by Fedora's names are not there, so rpm is told to install without, and what is required is looked for here.
required_by_rpms() {
  local name missing=0
  while read -r name; do
    case $name in
      'rpmlib('* | 'rtld(GNU_HASH)' | 'python(abi) '*) ;;
      lib*.so.*) inside ldconfig -p | grep -qF "${name%%(*} " || { echo "no ${name%%(*}"; missing=1; } ;;
      /*) [ -e "$tree$name" ] || { echo "no $name"; missing=1; } ;;
      python3) [ -e "$tree/usr/bin/python3" ] || { echo "no $name"; missing=1; } ;;
      *) echo "$name: not known"; missing=1 ;;
    esac
  done < <(rpm -qp --requires "$tree"/srv/rpm/*.rpm | sort -u | grep -vxFf <(rpm -qp --provides "$tree"/srv/rpm/*.rpm))
  return "$missing"
}

no_nvidia() {
  inside dpkg-query -W >"$state/installed" && ! grep -iE 'nvidia|cuda' "$state/installed"
}

with_debian() {
  list before-debs
  try 'debs installed' inside sh -c 'dpkg --install /srv/debian/*.deb'
  try 'no package of NVIDIA there' no_nvidia
  use debs
  try 'debs removed' inside sh -c 'for deb in /srv/debian/*.deb; do dpkg-deb --field "$deb" Package; done | xargs dpkg --purge'
  try 'debs left nothing' nothing_left debs
}

# Folders of several packages belong to one of Fedora's own, filesystem.
with_fedora() {
  local force=() names
  mkdir -p "$tree"/usr/lib64/pkgconfig "$tree"/usr/share/{fish/vendor_completions.d,licenses,zsh/site-functions}
  list before-RPMs
  if rpm --help | grep -q -e --force-debian; then force=(--force-debian); fi
  try 'what RPMs require' required_by_rpms
  try 'RPMs installed' fedora rpm "${force[@]}" --install --nodeps "$tree"/srv/rpm/*.rpm
  inside ldconfig # which Fedora's glibc does by a trigger
  use RPMs
  mapfile -t names < <(rpm -qp --queryformat '%{name}\n' "$tree"/srv/rpm/*.rpm)
  try 'RPMs removed' fedora rpm "${force[@]}" --erase "${names[@]}"
  inside ldconfig
  try 'RPMs left nothing' nothing_left RPMs
}

if [ "$(id -u)" != 0 ]; then
  echo "clean: a tree to install packages in is made by root"
  echo "0 passed, 0 failed, 1 skipped"
  exit
fi
rm -rf "$tree" "$state"
if ! make_tree; then
  echo "clean: there can be no Debian here: without a mirror of its packages in reach, for one"
  echo "0 passed, 0 failed, 1 skipped"
  exit
fi
fill_tree
with_debian
with_fedora
rm -rf "$tree"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
