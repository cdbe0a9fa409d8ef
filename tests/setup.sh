#!/usr/bin/env bash
#
# Makes a Debian machine ready, installing only what is missing, so that running it again costs a moment.
#
#   tests/setup.sh build ...    Debian packages by purpose: build, check, lint, web, network, fuzz, systemd,
#                               python-debian
#   tests/setup.sh python       an interpreter with PyTorch for tests, demo and bench; prints its path
#
# Packages are installed by root alone; anybody else is shown the command. The interpreter is PYTHON if that is set,
# else a virtual environment in .venv where PyPI can be reached, else Debian's own. Everything but the path goes to
# the standard error stream.
set -euo pipefail
cd "$(dirname "$0")/.."

# PyTorch is always asked for by its version, so that everybody tests with the same.
requirements=(torch==2.13.0 safetensors numpy scikit-learn pytest matplotlib)

# Other libraries' averages, which tests compare with, and a parser of metrics; without them those tests are skipped.
# Their own requirements are left out: torch is there, and the tests take from timm the one file that needs nothing else.
peers=(torch-ema==0.3 ema-pytorch==0.8.3 timm==1.0.31 prometheus-client)

debian_python=/usr/bin/python3
debian_python_packages=(python3 python3-torch python3-numpy python3-sklearn python3-pytest python3-matplotlib)
debian_python_mark=build/python-debian

say() {
	printf 'setup: %s\n' "$*" >&2
}

die() {
	say "$*"
	exit 1
}

# The packages of a purpose. The libraries are those that the Makefile names.
packages() {
	case $1 in
	build) echo gcc libc6-dev make pkg-config; sed -n 's/^debian_[a-z]* *:= *//p' Makefile | tr '\n' ' ' ;;
	check) echo python3 check strace libfaketime util-linux ;;
	web) echo prometheus chromium wrk curl jq ;;
	network) echo iproute2 nftables openssl ;;
	lint) echo python3 python3-pyflakes shellcheck cppcheck git mandoc ;;
	fuzz) echo clang llvm ;;
	systemd) echo python3 systemd procps util-linux passwd ;;
	python-debian) echo "${debian_python_packages[@]}" ;;
	*) die "unknown purpose '$1': build, check, lint, web, network, fuzz, systemd, python-debian, python" ;;
	esac
}

# Prints those of the named packages that are not installed.
missing() {
	local installed package
	installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p') || true
	for package; do
		case $'\n'$installed$'\n' in
		*$'\n'"$package"$'\n'*) ;;
		*) echo "$package" ;;
		esac
	done
}

ensure() {
	local absent log
	if ! command -v dpkg-query apt-get >/dev/null 2>&1; then
		say "this is not a Debian system; going on with what is installed"
		return
	fi
	mapfile -t absent < <(missing "$@" | sort -u)
	[ ${#absent[@]} -gt 0 ] || return 0
	[ "$(id -u)" -eq 0 ] || die "packages are missing, run: sudo apt-get install -y ${absent[*]}"
	say "installing ${absent[*]}"
	log=$(mktemp)
	export DEBIAN_FRONTEND=noninteractive
	apt-get -q update >"$log" 2>&1 </dev/null || say "apt-get update failed; going on with the lists at hand"
	if ! apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 install "${absent[@]}" \
		>>"$log" 2>&1 </dev/null; then
		tail -n 20 "$log" >&2
		rm -f "$log"
		die "apt-get install ${absent[*]} failed"
	fi
	rm -f "$log"
}

# Prints those of the named modules that an interpreter lacks, without the seconds that importing them would take.
modules_missing() {
	"$1" - "${@:2}" <<-'END'
		import importlib.util, sys
		print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])
	END
}

# The stamp is written last and holds what was asked for: a half-made or outdated environment is made anew.
venv_is_complete() {
	[ -x .venv/bin/python ] && [ "$(cat .venv/complete 2>/dev/null)" = "${requirements[*]} ${peers[*]}" ]
}

# Answers within seconds whether PyPI, or whatever pip is configured to use, hands out packages.
pypi_is_reachable() {
	local folder status=0
	folder=$(mktemp -d)
	timeout 20 .venv/bin/python -m pip -q download --no-deps --no-cache-dir --timeout 5 --retries 0 -d "$folder" pytest \
		>/dev/null 2>&1 </dev/null || status=1
	rm -rf "$folder"
	return $status
}

venv_create() {
	local log
	rm -rf .venv
	"$debian_python" -m venv .venv >&2 || return 1
	if ! pypi_is_reachable; then
		say "PyPI cannot be reached"
		return 1
	fi
	say "installing ${requirements[*]} into .venv (some minutes)"
	log=$(mktemp)
	if ! .venv/bin/python -m pip install --timeout 15 --retries 2 "${requirements[@]}" \
		>"$log" 2>&1 </dev/null; then
		tail -n 5 "$log" >&2
		rm -f "$log"
		return 1
	fi
	rm -f "$log"
	.venv/bin/python -m pip -q install --no-deps --timeout 15 --retries 2 "${peers[@]}" >/dev/null 2>&1 </dev/null ||
		say "going on without ${peers[*]}"
	printf '%s\n' "${requirements[*]} ${peers[*]}" >.venv/complete
}

python() {
	local absent
	if [ -n "${PYTHON:-}" ]; then
		command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON is not a program"
		absent=$(modules_missing "$PYTHON" torch numpy sklearn pytest)
		[ -z "$absent" ] || die "PYTHON=$PYTHON lacks $absent: install them, or leave PYTHON unset"
		echo "$PYTHON"
		return
	fi
	if ! venv_is_complete; then
		if [ ! -e "$debian_python_mark" ] || [ -n "$(missing "${debian_python_packages[@]}")" ]; then
			ensure python3 python3-venv
			if ! venv_create; then
				rm -rf .venv
				say "taking Debian's Python packages instead ('make clean' forgets this choice)"
				ensure "${debian_python_packages[@]}"
				mkdir -p "${debian_python_mark%/*}"
				touch "$debian_python_mark"
			fi
		fi
	fi
	if venv_is_complete; then
		echo "$PWD/.venv/bin/python"
	else
		echo "$debian_python"
	fi
}

[ $# -gt 0 ] || die "usage: tests/setup.sh build|check|lint|web|network|fuzz|systemd|python-debian ... | python"
if [ "$1" = python ]; then
	python
else
	wanted=()
	for purpose; do
		read -ra named <<<"$(packages "$purpose" | tr '\n' ' ')"
		wanted+=("${named[@]}")
	done
	ensure "${wanted[@]}"
fi
