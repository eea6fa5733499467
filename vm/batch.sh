# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Runs a list of jobs in as few boots as it takes, sourced by test.sh and
# test-kvm.sh: a job that brings the machine down costs another boot for those
# that wait behind it.

BATCH_DIR=$(dirname "${BASH_SOURCE[0]}")

# Set by the caller: how many jobs there are in all, how many have begun.
TOTAL=0
BEGUN=0

# Boots so far, to tell their logs apart.
BOOTS=0

# How many machines the caller runs at a time.
LANES=1

# The job that prepares a machine, if it needs one: the caller's lists begin with
# it, and so does each boot.
FIRST_JOB=

# Empty log directory $1 for this run alone: another run waits for its turn.
open_logs() {
	local out=$1

	mkdir -p "$out"
	exec {LOCK}>"$out.lock"
	if ! flock -n "$LOCK"; then
		echo "waiting for another run with logs in $out"
		flock "$LOCK"
	fi
	rm -rf "$out"
	mkdir -p "$out"
}

# Print line $1, or keep it for flush_output if other machines print as well.
HELD=
say() {
	if ((LANES == 1)); then
		echo "$1"
	else
		HELD+=$1$'\n'
	fi
}

# Print what was kept in one piece.
flush_output() {
	[[ -n $HELD ]] || return 0
	(
		flock 9
		printf '%s' "$HELD"
	) 9>>"$BUILD/logs/print.lock"
	HELD=
}

# Show the programs' output, line by line as it comes, or program by program
# where several machines run, and split it at init's marks into $1/JOB.log.
show_output() {
	local out=$1 mark=$'\x1e' job='' log=/dev/null line blank='' begun=$BEGUN since

	while IFS= read -r line; do
		line=${line%$'\r'}
		case $line in
		"${mark}begin "*)
			begun=$((begun + 1)) since=$SECONDS
			job=${line#*begin }
			log=$out/$job.log
			say "[$begun/$TOTAL] $job"
			: >"$log" ;;
		"${mark}end "*)
			say "# $job took $((SECONDS - since)) s"
			flush_output
			log=/dev/null ;;
		'')
			# One of these comes before each mark.
			[[ -z $blank ]] || say_and_log '' "$log"
			blank=1
			continue ;;
		*)
			[[ -z $blank ]] || say_and_log '' "$log"
			say_and_log "$line" "$log" ;;
		esac
		blank=
	done
	flush_output
}

say_and_log() {
	say "$1"
	echo "$1" >>"$2"
}

# The part of console log $1 that belongs to job $2.
console_of() {
	awk -v begin="vm: begin $2\$" -v end="vm: end $2\$" '
		$0 ~ begin { inside = 1 }
		inside { print }
		$0 ~ end { inside = 0 }' "$1"
}

# One boot for the jobs of list $2; run.sh's options follow.  Sets STATUS and
# REASON to run.sh's.
boot_jobs() {
	local out=$1 list=$2

	shift 2
	{
		"$BATCH_DIR/run.sh" "$@" --jobs "$list" --verdict "$out/verdict" \
			--log "$LOG" 2>"$out/reason" && echo 0 >"$out/status" ||
			echo $? >"$out/status"
	} | show_output "$out"
	STATUS=$(<"$out/status")
	REASON=$(tail -1 "$out/reason")
	REASON=${REASON#run.sh: }
}

# Run the jobs of list $2 (see run.sh --jobs) with run.sh's options $3...
# Leaves in directory $1 for each job:
#   JOB.log          its output
#   JOB.console.log  what the kernel said meanwhile
#   JOB.result       "exit N", "signal N", "timeout", "stuck" or "lost: REASON",
#                    then what it left behind, one a line; no file: not run
# and for the machine:
#   machine.result   why a boot failed that no job can be blamed for
run_batch() {
	local out=$1 list=$2 left=$1/left

	shift 2
	cp "$list" "$left"
	cp "$list" "$left.boot"
	while [[ -s $left ]]; do
		BOOTS=$((BOOTS + 1))
		LOG=${out#"$BUILD/logs/"}/boot-$BOOTS
		: >"$out/verdict"
		boot_jobs "$out" "$left.boot" "$@"
		collect_results "$out" "$BUILD/logs/$LOG.console.log" "$left"
		{
			[[ -z $FIRST_JOB ]] || echo "$FIRST_JOB"
			cat "$left"
		} >"$left.boot"
	done
	rm -f "$left"{,.boot} "$out"/{verdict,reason,status}
}

# Take over the results of a boot of list $3's jobs, and leave in the list
# those that have yet to run.
collect_results() {
	local out=$1 console=$2 left=$3 name result line blamed='' taken=0

	: >"$left.next"
	while read -r line; do
		name=${line%% *}
		result=$(result_of "$out/verdict" "$name")
		if [[ -z $result ]] && ! grep -aq "vm: begin $name\$" "$console" 2>/dev/null; then
			echo "$line" >>"$left.next"
			continue
		fi
		taken=$((taken + 1))
		console_of "$console" "$name" >"$out/$name.console.log"
		[[ -n $result ]] || blamed=1
		echo "${result:-lost: $REASON}" >"$out/$name.result"
		grep -a "^leak $name " "$out/verdict" >>"$out/$name.result" || true
		[[ -z $(splats "$out/$name.console.log") ]] || blamed=1
	done <"$left"

	BEGUN=$((BEGUN + taken))
	mv "$left.next" "$left"
	if ((STATUS != 0)) && [[ -z $blamed || $REASON = leak:* ]]; then
		echo "$REASON" >>"$out/machine.result"
	fi
	# A machine that gets nowhere is not started again.
	((taken > 0)) || : >"$left"
}
