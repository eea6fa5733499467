#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Build a kernel and its modules from a kernel tree, or KVM alone, with the
# configuration that the fragments ask for, and make sure that it got all of it.

set -euo pipefail

usage() {
	cat <<-END
	Usage: configs/kernel.sh [--kvm-only] TREE OUT FRAGMENT... [-- MAKE-ARGUMENT...]

	  --kvm-only  compile KVM, with warnings as errors, and nothing else
	  TREE      kernel tree, left clean
	  OUT       O= directory; the modules are collected in OUT/ko
	  FRAGMENT  configuration files, merged over allnoconfig; the last one wins
	END
}

# Fail and name the options that Kconfig did not grant.
check_config() {
	local wanted=$1 config=$2 missing

	missing=$(
		grep '^CONFIG_' "$wanted" | grep -vxFf "$config" || true
		sed -n 's/^# \(CONFIG_[A-Z0-9_]*\) is not set$/^\1=/p' "$wanted" |
			grep -f - "$config" || true
	)
	if [[ -n $missing ]]; then
		echo "kernel: $config is not as asked for:" >&2
		echo "$missing" >&2
		echo "In configs/, give each of these its dependencies, or drop it." >&2
		exit 1
	fi
}

# What the fragments say of each option last.
merge() {
	cat "$@" | tac | awk 'match($0, /CONFIG_[A-Z0-9_]+/) {
		if (!seen[substr($0, RSTART, RLENGTH)]++) print }' | tac
}

configure() {
	local tree=$1 out=$2

	if cmp -s "$out/wanted.config.new" "$out/wanted.config"; then
		return
	fi
	make -s -C "$tree" O="$out" KCONFIG_ALLCONFIG="$out/wanted.config.new" allnoconfig
	check_config "$out/wanted.config.new" "$out/.config"
	mv "$out/wanted.config.new" "$out/wanted.config"
}

main() {
	local tree out name kvm_only=""
	local -a fragments=()

	if [[ ${1:-} == --kvm-only ]]; then
		kvm_only=1
		shift
	fi

	if (($# < 3)); then
		usage >&2
		exit 2
	fi
	tree=$(realpath "$1")
	mkdir -p "$2/ko"
	out=$(realpath "$2")
	shift 2
	while (($#)) && [[ $1 != -- ]]; do
		fragments+=("$1")
		shift
	done
	shift || true
	name=${out##*-}

	exec 9>"$out/lock"
	flock 9
	merge "${fragments[@]}" >"$out/wanted.config.new"
	configure "$tree" "$out"
	if [[ $kvm_only ]]; then
		make -s -C "$tree" O="$out" KCFLAGS=-Werror "$@" arch/x86/kvm/
		return
	fi
	# With KCSAN, what KVM's own threads may race for.  As a variable of the
	# environment it is the default of files that do not say otherwise.
	if grep -qx CONFIG_KCSAN=y "$out/.config"; then
		# shellcheck disable=SC2016 # make expands it
		export KCSAN_SANITIZE='$(if $(filter arch/x86/kvm/% lib/xarray,$(obj)/$(target-stem)),,n)'
	fi
	make -s -C "$tree" O="$out" LOCALVERSION="-$name" "$@" bzImage
	# With gcov, of all the kernel only the modules, which are KVM, count.
	if grep -qx CONFIG_GCOV_KERNEL=y "$out/.config"; then
		set -- "$@" GCOV_PROFILE=y
	fi
	make -s -C "$tree" O="$out" LOCALVERSION="-$name" "$@" modules
	find "$out" -path "$out/ko" -prune -o -name '*.ko' -exec cp -u -t "$out/ko" {} +
}

main "$@"
