#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Makes the packages for Debian and for Fedora from a source package, in a folder that is new:
#
#   packaging/build.sh drowse-VERSION.tar.xz FOLDER [--tests]
#
# FOLDER/debian and FOLDER/rpm have them then. What says how they are made comes from the source package. They depend on
# $SOURCE_DATE_EPOCH and on what is installed, not on when, where, in what folder or by whom they are made. Without --tests the
# library's own tests are not run.
set -euo pipefail
tarball=$(realpath "$1") folder=$(realpath -m "$2") tests=${3:-}
version=${tarball##*/drowse-} version=${version%.tar.xz}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:?says what time the packages bear}
# Packages are for the machine's own Python.
PATH=/usr/sbin:/usr/bin:/sbin:/bin

debian() {
  local source=$folder/debian/drowse-$version options
  options="parallel=$(nproc)"
  [ "$tests" = --tests ] || options="$options nocheck"
  mkdir -p "$folder/debian"
  cp "$tarball" "$folder/debian/drowse_$version.orig.tar.xz"
  tar -xf "$tarball" -C "$folder/debian"
  cp -r "$source/packaging/debian" "$source"
  chmod -R u=rwX,go=rX "$source/debian"
  (cd "$source" && DEB_BUILD_OPTIONS=$options dpkg-buildpackage --unsigned-source --unsigned-changes)
  rm -rf "$source"
}

# What the spec file requires are packages by Fedora's names, which other systems' databases have not: --nodeps. Where there are
# not Fedora's macros either, Python modules go where Debian's Python looks, brp-compress, which needs bash, gets it, and the
# linker strips what Fedora's debuginfo packages would have.
#
# A source RPM keeps the spec file with every folder's name filled in, and RPMs that are made with it keep its checksum. So it is
# made by itself, in a folder that is called ".".
fedora() {
  local work=$folder/rpm-work check=()
  local options=(--nodeps --define '_buildhost localhost' --define 'use_source_date_epoch_as_buildtime 1'
    --define 'clamp_mtime_to_source_date_epoch 1' --define '_pkgdocdir %{_docdir}/%{name}' --define "_rpmdir $folder/rpm"
    --define "_srcrpmdir $folder/rpm" --define '_build_name_fmt %%{NAME}-%%{VERSION}-%%{RELEASE}.%%{ARCH}.rpm')
  [ "$tests" = --tests ] || check=(--without check) # of the source RPM it would be a part
  if [ -z "$(rpm --eval '%{?python3_sitelib}')" ]; then
    options+=(--define '__python3 /usr/bin/python3' --define 'python3_sitelib /usr/lib/python3/dist-packages'
      --define '__brp_compress /bin/bash %{_rpmconfigdir}/brp-compress /usr')
    export LDFLAGS=-Wl,-s
  fi
  mkdir -p "$work/SOURCES" "$folder/rpm"
  tar -xOf "$tarball" "drowse-$version/packaging/rpm/drowse.spec" >"$work/drowse.spec"
  cp "$tarball" "$work/SOURCES"
  chmod 644 "$work"/drowse.spec "$work"/SOURCES/*
  touch -d "@$SOURCE_DATE_EPOCH" "$work"/drowse.spec "$work"/SOURCES/*
  (cd "$work" && rpmbuild -bs "${options[@]}" --define '_topdir .' --define '_smp_build_ncpus 1' drowse.spec)
  (cd "$work" && rpmbuild -bb "${options[@]}" "${check[@]}" --define "_topdir $work" drowse.spec)
  rm -rf "$work"
}

mkdir -p "$folder"
debian
fedora
