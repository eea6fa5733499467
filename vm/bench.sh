#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What operations on a guest's memory cost, in instructions: with the unmodified
# modules, with ours, and of other memory.

set -euo pipefail

VM_DIR=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
TOP=$(dirname "$VM_DIR")
BUILD=$TOP/build
PROGRAM=$BUILD/selftests/ours/gmem_bench

SIZES=${SIZES:-64 1024}
PAGE=$TOP/Documentation/virt/kvm/guest_memfd-bench.rst

# VMs at once
JOBS=${JOBS:-$(nproc)}

usage() {
	cat <<-EOF
	Usage: make bench [SIZES="MIB..."]
	   or: vm/bench.sh [--json | --update] [RESULTS]

	Run gmem_bench in VMs, with the unmodified modules and with ours, and print
	tables.  The emulated CPU's clock counts its instructions: they repeat to 0.1%.
	All numbers stay in build/bench/results, one a line, and in bench.json there.

	  --json    print JSON in place of tables
	  --update  put the tables into Documentation/virt/kvm/guest_memfd-bench.rst
	  RESULTS   run nothing, but take those of an earlier run
	  SIZES     of the guest's memory, in MiB, multiples of 4; memory of other kinds
	            is measured in the first one only; default: $SIZES
	EOF
}

# What is measured of private memory: operation, target, name.  Targets are
# instructions, or a multiple of the unmodified modules'.
per_page() {
	cat <<-EOF
	set_private      8     set private (attributes)
	first_touch      700   first touch by the guest
	touch_allocated  700   touch after fallocate
	fallocate        40    fallocate
	punch            40    punch hole (mapped)
	to_shared        100   convert to shared (mapped)
	to_private       100   convert to private again
	touch_again      60    touch again after converting back
	prefault         -     prefault (KVM_PRE_FAULT_MEMORY)
	delete_slot      -     delete the memslot (mapped)
	close            60    last close (all present)
	vm_destroy       -     destroy the VM (all mapped)
	touch_moved      -     touch again after a handover
	4k:first_touch   0.9x  4 KiB folios: first touch
	4k:fallocate     0.9x  4 KiB folios: fallocate
	4k:punch         0.9x  4 KiB folios: punch hole
	4k:close         0.9x  4 KiB folios: last close
	EOF
}

# The same for what is no matter of pages.
each() {
	cat <<-EOF
	scatter_to_shared   -  convert one page of many to shared
	scatter_to_private  -  convert it to private again
	vm_create           -  VM creation to first instruction
	vm_destroy_unused   -  destroy a VM that has no memory yet
	handover            -  handover: link + move, whole VM
	EOF
}

# What other memory can do as well.
shared_operations() {
	cat <<-EOF
	first_touch      first touch by the guest
	host_touch       first touch by the host
	fallocate        fallocate
	touch_allocated  touch after fallocate
	prefault         prefault
	map_again        prefault what is there
	punch            punch hole, MADV_DONTNEED
	delete_slot      delete the memslot
	close            munmap and last close
	vm_destroy       destroy the VM
	EOF
}

BACKINGS=(private private_4k mmap anon_4k anon_huge memfd_4k memfd_huge hugetlb)

#
# Running
#

# Part $2 of the results for modules $1: gmem_bench with arguments after $3, in a
# machine of $3 (run.sh's options).
run() {
	local modules=$1 part=$2 machine=$3 log

	shift 3
	log=$BUILD/bench/$modules-$part
	echo "bench.sh: $modules, $part" >&2
	# shellcheck disable=SC2086 # several options
	if ! "$VM_DIR/run.sh" $machine --modules "$modules" --timeout 1800 \
		--log "bench-$modules-$part" -- "$PROGRAM" "$@" >"$log.log"; then
		cat "$log.log" >&2
		return 1
	fi
	sed -n "s/^\(time\|memory\|longest\) /$modules &/p" "$log.log" >"$log"
}

# What counts instructions, for modules $1.
run_counted() {
	local modules=$1 size largest=0 sizes=()

	for size in $SIZES; do
		sizes+=(--size "$size")
		((size <= largest)) || largest=$size
	done
	run "$modules" instructions "--icount --mem $((largest + 1024))" \
		"${sizes[@]}" --all &&
		run "$modules" longest \
			"--icount --mem $((largest + 1024)) --append preempt=full" \
			"${sizes[@]}" --watch
}

# A clock that counts instructions does not mind what else the machine does.
run_all() {
	local modules status=0

	make -s -C "$TOP" selftests modules modules-base >&2
	mkdir -p "$BUILD/bench" "$BUILD/logs"
	if ((JOBS > 1)); then
		run_counted base &
		run_counted ours || status=$?
		wait $! || status=$?
	else
		run_counted base && run_counted ours || status=$?
	fi
	((status == 0)) || return $status
	for modules in base ours; do
		run $modules vcpus "--cpus 2 --mem 1024" --size 64 --vcpus
	done
	cat "$BUILD"/bench/{base,ours}-{instructions,longest,vcpus} >"$RESULTS"
}

#
# Results: V[MODULES KIND BACKING OPERATION MIB] is a number, or several
#

declare -A V

read_results() {
	local modules kind backing op mib rest key

	while read -r modules kind backing op mib rest; do
		key="$modules $kind $backing $op $mib"
		# Of several tries, the quickest
		if [[ -z ${V[$key]:-} || $kind != time ]] ||
			((${rest%% *} < ${V[$key]%% *})); then
			V[$key]=$rest
		fi
	done <"$RESULTS"
}

# The sizes that there are, smallest first.
sizes() {
	awk '$2 == "time" && $4 == "first_touch" { print $5 }' "$RESULTS" | sort -nu
}

# $1 / $2 as printf format $3 has it, by default one decimal; "-" without either.
divide() {
	if [[ $1 = - || $2 = - ]]; then
		echo -
	else
		awk -v a="$1" -v b="$2" -v f="${3:-%.1f}" \
			'BEGIN { if (b == 0) print "-"; else printf f, a / b }'
	fi
}

# Instructions, or "-": of operation $3 on memory $2 with modules $1, size $4,
# for each page, conversion or whatever it is done to.
instructions() {
	local modules=$1 backing=$2 op=$3 mib=$4 link move busy pages

	if [[ $op = handover ]]; then
		link=$(instructions "$modules" "$backing" link "$mib")
		move=$(instructions "$modules" "$backing" move "$mib")
		[[ $link = - ]] || link=$((${link%.*} + ${move%.*}))
		divide "$link" 1
		return
	elif [[ $op = 4k:* ]]; then
		op=${op#4k:}
		# Where there are huge folios, small ones are measured beside them.
		[[ -z ${V["$modules time private_4k $op $mib"]:-} ]] || backing=private_4k
	fi
	read -r _ busy pages <<<"${V["$modules time $backing $op $mib"]:-}"
	divide "${busy:--}" "${pages:--}"
}

# Is $2, where the unmodified modules have $1, as good as target $3?
verdict() {
	local base=$1 ours=$2 target=$3

	[[ $target != - && $ours != - ]] || return 0
	[[ $target = *x ]] || base=1
	[[ $base != - ]] || return 0
	awk -v ours="$ours" -v base="$base" -v target="${target%x}" \
		'BEGIN { print ours <= base * target ? "met" : "not met" }'
}

target_name() {
	case $1 in
	-) ;;
	*x) echo "<= ${1%x} base" ;;
	*) echo "<= $1" ;;
	esac
}

rows() {
	local table=$1 mib=$2 op target name base ours

	printf '%-37s%10s%10s%8s  %-12s%s\n' "$3" base ours ratio target ''
	while read -r op target name; do
		base=$(instructions base private "$op" "$mib")
		ours=$(instructions ours private "$op" "$mib")
		printf '%-37s%10s%10s%8s  %-12s%s\n' "$name" "$base" "$ours" \
			"$(divide "$ours" "$base" %.3f)" "$(target_name "$target")" \
			"$(verdict "$base" "$ours" "$target")"
	done < <("$table")
}

private_table() {
	echo "Private memory, $1 MiB: instructions"
	echo
	rows per_page "$1" "for each 4 KiB page"
	echo
	rows each "$1" "each"
}

# Does a handover cost the same for all sizes?
handover_line() {
	local mib all=()

	for mib in $(sizes); do
		all+=("$(instructions ours private handover "$mib")")
	done
	printf '%s\n' "${all[@]}" | sort -n | awk '
		NR == 1 { least = $1 }
		END {
			if (least > 0)
				printf "A handover of the largest differs from one of the " \
				       "smallest by %.1f%% (target: 10%%): %s.\n",
				       ($1 / least - 1) * 100,
				       $1 <= least * 1.1 ? "met" : "not met"
		}'
}

backings_table() {
	local mib=$1 op name backing

	echo "All memory, $mib MiB, our modules: instructions for each 4 KiB page"
	echo
	printf '%-26s' ''
	printf '%11s' "${BACKINGS[@]}"
	echo
	while read -r op name; do
		printf '%-26s' "$name"
		for backing in "${BACKINGS[@]}"; do
			printf '%11s' "$(instructions ours "$backing" "$op" "$mib")"
		done
		echo
	done < <(shared_operations)
}

# Memory of other kinds should cost what it does with the unmodified modules.
others_line() {
	local mib op backing ratio
	local -a ratios

	for mib in $(sizes); do
		while read -r op _; do
			for backing in "${BACKINGS[@]:3}"; do
				ratio=$(divide "$(instructions ours "$backing" "$op" "$mib")" \
					"$(instructions base "$backing" "$op" "$mib")" %.3f)
				[[ $ratio = - ]] || ratios+=("$ratio ($backing, $op, $mib MiB)")
			done
		done < <(shared_operations)
	done
	((${#ratios[@]})) || return 0
	echo "Memory that is no guest_memfd, ours / base:"
	printf '%s\n' "${ratios[@]}" | sort -n |
		awk 'NR == 1 { print "  from " $0 } END { print "  to   " $0 }'
}

# For how many instructions nothing else can run in operation $2 with modules $1.
longest() {
	local modules=$1 op=$2 mib=$3 small

	small=${V["$modules longest private_4k ${op#4k:} $mib"]:-}
	if [[ $op = 4k:* && -n $small ]]; then
		echo "$small"
	else
		echo "${V["$modules longest private ${op#4k:} $mib"]:--}"
	fi
}

longest_table() {
	local op name modules mib ns limit=1000000 worst=''

	echo "Longest time that nothing else can run, in instructions (target: <= $limit)"
	echo
	printf '%-37s' 'private memory'
	for mib in $(sizes); do
		printf '%14s%14s' "base, $mib" "ours, $mib"
	done
	echo
	while read -r op _ name; do
		printf '%-37s' "$name"
		for mib in $(sizes); do
			for modules in base ours; do
				ns=$(longest $modules "$op" "$mib")
				printf '%14s' "$ns"
				[[ $modules = base || $ns = - ]] || ((ns <= worst)) || worst=$ns
			done
		done
		echo
	done < <(per_page; each | sed 's/^handover .*/move - handover: move/')
	[[ -n $worst ]] || return 0
	echo
	echo "Ours at most: $worst, $( ((worst <= limit)) && echo met || echo 'not met')."
}

# KiB of kind $4 (0 to 2) that operation $3 on memory $2, size $5, takes with
# modules $1, for a GiB.
memory() {
	local -a kb

	read -ra kb <<<"${V["$1 memory $2 $3 $5"]:-}"
	[[ -n ${kb[*]} ]] && divide "$((kb[$4] * 1024))" "$5" %.0f || echo -
}

memory_table() {
	local mib backing op modules kind

	echo "Memory beside the memory, in KiB for a GiB"
	echo
	printf '%-25s%8s%16s%20s%20s\n' '' MiB slab 'page tables' "KVM's"
	printf '%33s%10s%10s%10s%10s%10s%10s\n' '' base ours base ours base ours
	while read -r backing op; do
		mib=$(awk -v b="$backing" -v o="$op" \
			'$2 == "memory" && $3 == b && $4 == o { print $5 }' "$RESULTS" |
			sort -n | tail -1)
		[[ -n $mib ]] || continue
		printf '%-25s%8s' "$backing: $op" "$mib"
		for kind in 0 1 2; do
			for modules in base ours; do
				printf '%10s' "$(memory $modules "$backing" "$op" "$kind" "$mib")"
			done
		done
		echo
	done < <(
		printf 'private %s\n' set_private first_touch fallocate prefault
		printf '%s first_touch\n' "${BACKINGS[@]:1}"
		echo mmap host_touch
	)
}

vcpus_table() {
	local modules one two

	echo "Two vCPUs that touch 64 MiB at once, compared with one: wall time"
	echo
	for modules in base ours; do
		read -r one _ <<<"${V["$modules time private one_vcpu 64"]:--}"
		read -r two _ <<<"${V["$modules time private two_vcpus 64"]:--}"
		printf '%-37s%10s\n' "$modules" "$(divide "$two" "$one" %.2f)"
	done
	echo
	echo "QEMU runs both CPUs in turn, in one thread: nothing is parallel, and 1 is the"
	echo "best to be expected.  This is all but instructions: on a busy machine it is off"
	echo "by a quarter, and less than 1 is such an error."
}

print_tables() {
	all_tables | sed 's/ *$//'
}

all_tables() {
	local mib

	for mib in $(sizes); do
		private_table "$mib"
		echo
	done
	handover_line
	for mib in $(sizes); do
		[[ -n ${V["ours time anon_4k first_touch $mib"]:-} ]] || continue
		echo
		backings_table "$mib"
	done
	echo
	others_line
	echo
	longest_table
	echo
	memory_table
	echo
	vcpus_table
}

# One object for each line of the results.
print_json() {
	awk '
	BEGIN {
		fields["time"] = "elapsed_ns busy_ns pages"
		fields["memory"] = "slab_kib pagetables_kib secpagetables_kib"
		fields["longest"] = "ns"
		printf "["
	}
	{
		printf("%s\n  {\"modules\": \"%s\", \"kind\": \"%s\", \"backing\": \"%s\", " \
		       "\"operation\": \"%s\", \"mib\": %d", NR > 1 ? "," : "", $1, $2, $3, $4, $5)
		split(fields[$2], names, " ")
		for (i = 6; i <= NF; i++)
			printf ", \"%s\": %d", names[i - 5], $i
		printf "}"
	}
	END { print "\n]" }' "$RESULTS"
}

# Replace what is between the two markers.
update_page() {
	local new

	new=$(mktemp)
	awk -v begin=".. bench begin" -v end=".. bench end" '
		$0 == end { skip = 0 }
		!skip { print }
		$0 == begin {
			skip = 1
			print "\n::\n"
			while ((getline line < "/dev/stdin") > 0)
				print line == "" ? "" : "  " line
			print ""
		}' "$PAGE" >"$new" < <(print_tables)
	cat "$new" >"$PAGE"
	rm "$new"
}

main() {
	local print=print_tables

	RESULTS=
	while (($#)); do
		case $1 in
		--json) print=print_json ;;
		--update) print=update_page ;;
		--help | -h) usage; exit 0 ;;
		-*) usage >&2; exit 2 ;;
		*) RESULTS=$1 ;;
		esac
		shift
	done
	if [[ -z $RESULTS ]]; then
		RESULTS=$BUILD/bench/results
		run_all
		print_json >"$BUILD/bench/bench.json"
	fi
	read_results
	"$print"
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || main "$@"
