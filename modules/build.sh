#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build kvm.ko, kvm-amd.ko and kvm-intel.ko of a kernel tree against stock
# linux-headers. The tree is linked file by file into OUT/src, where the
# objects stay, and the finished modules are put into OUT.

set -euo pipefail

usage() {
	cat <<-END
	Usage: modules/build.sh [--set OPTION]... TREE HEADERS OUT [MAKE-ARGUMENT...]
	       modules/build.sh --check [--set OPTION]... TREE HEADERS OUT

	  TREE     kernel tree whose arch/x86/kvm and virt/kvm are built
	  HEADERS  unpacked linux-headers-VERSION-FLAVOUR directory
	  OUT      where the modules go

	TREE.files, if it exists, lists the files in which TREE differs from
	the kernel that HEADERS are of: its headers are used instead of theirs.

	--check only compiles the files that TREE.links lists, with sparse and W=1.
	--set adds an option, such as CONFIG_KVM_GMEM_TEST=y, to modules/config's.
	END
}

here=$(dirname "$(realpath "$0")")

# What the build needs of the tree, as paths in the tree.
list_files() {
	local tree=$1

	(cd "$tree" && find arch/x86/kvm virt/kvm ! -type d)
	if [[ -e $tree.files ]]; then
		grep -E '^(arch/x86/)?include/' "$tree.files" || true
	fi
}

# Make src hold links to exactly those files: objects stay, links of files
# that are gone go.
link_files() {
	local tree=$1 src=$2 path file

	mkdir -p "$src"/{,arch/x86/}include/uapi "$src/include/trace"
	list_files "$tree" | sort | sed "s|^|$tree/|" >"$src/files.new"
	if cmp -s "$src/files.new" "$src/files"; then
		rm "$src/files.new"
		return
	fi
	find "$src" -type l -delete
	while read -r path; do
		file=${path#"$tree"/}
		mkdir -p "$src/$(dirname "$file")"
		ln -s "$path" "$src/$file"
	done <"$src/files.new"
	ln -s "$here/Kbuild" "$src/arch/x86/kvm/Kbuild"
	mv "$src/files.new" "$src/files"
}

# Make file $1 hold what comes on stdin; untouched if it does already, so that
# nothing is built for it.
update() {
	cat >"$1.new"
	if cmp -s "$1.new" "$1"; then
		rm "$1.new"
	else
		mv "$1.new" "$1"
	fi
}

# config says to make, and config.h to C, what modules/config and the options
# that follow say.
make_config() {
	local src=$1
	shift

	printf '%s\n' "$(<"$here/config")" "$@" | update "$src/config"
	sed -n 's/^\(CONFIG_[A-Z0-9_]*\)=y$/#define \1 1/p' "$src/config" |
		update "$src/config.h"
}

# The objects of the overlay's files, as arch/x86/kvm/Makefile names them.
list_objects() {
	sed -n 's|^arch/x86/kvm/\(.*\)\.c$|\1.o|p; s|^\(virt/kvm/.*\)\.c$|../../../\1.o|p' \
		"$1.links" | xargs
}

# Debug information and BTF would double the build time.
run_make() {
	local headers=$1 src=$2
	shift 2

	make --no-print-directory -C "$headers" M="$src/arch/x86/kvm" \
		CONFIG_DEBUG_INFO= CONFIG_DEBUG_INFO_BTF_MODULES= "$@"
}

main() {
	local check="" options=() tree headers out module

	while [[ ${1:-} == --* ]]; do
		case $1 in
		--check) check=1 ;;
		--set)
			options+=("${2:?--set needs an option}")
			shift ;;
		*)
			usage >&2
			exit 2 ;;
		esac
		shift
	done
	if (($# < 3)); then
		usage >&2
		exit 2
	fi
	tree=$(realpath "$1")
	headers=$(realpath "$2")
	mkdir -p "$3"
	out=$(realpath "$3")
	shift 3

	exec 9>"$out/lock"
	flock 9
	link_files "$tree" "$out/src"
	make_config "$out/src" "${options[@]}"
	if [[ $check ]]; then
		# Sparse does not follow locks through guards and conditions.
		run_make "$headers" "$out/src" ONLY="$(list_objects "$tree")" \
			C=2 CF=-Wno-context W=1 kvm.o
		return
	fi
	run_make "$headers" "$out/src" "$@" modules
	for module in kvm kvm-amd kvm-intel; do
		cp -u "$out/src/arch/x86/kvm/$module.ko" "$out/"
	done
}

main "$@"
