# shellcheck shell=bash
# Sourced by run.sh and test.sh, and by hand: go to the root, use the active virtual environment or make .venv, install
# what requirements.txt and the named extra ask for; nothing is installed again while neither file has changed.
# An environment whose install is another checkout stays that one's: REINSTALL=1 makes it this one's.
#
#     source training/environment.sh [EXTRA]
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")/.." && pwd)"  # $0: zsh
cd "${ROOT}" || return
if [[ -z "${VIRTUAL_ENV:-}" ]]; then
    if [[ ! -x .venv/bin/python ]]; then
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
            { echo "error: $(python3 --version 2>&1) found, Python 3.10 or newer expected" >&2; return 2; }
        echo "making .venv"
        python3 -m venv .venv || return
    fi
    # shellcheck source=/dev/null
    source .venv/bin/activate
fi
export PYTHONPATH="${ROOT}"                                 # this checkout wins over any installed one
find_install='import importlib.metadata as metadata, json, urllib.parse as urls
told = json.loads(metadata.distribution("plumbline").read_text("direct_url.json"))
print(urls.unquote(told["url"].removeprefix("file://")))'
installed="$("${VIRTUAL_ENV}/bin/python" -I -c "${find_install}" 2>/dev/null)" || installed=""   # -I: not one on the path
if [[ -n "${REINSTALL:-}" || ! -f "${installed}/utils/__init__.py" || "${installed}" -ef "${ROOT}" ]]; then
    installed="${ROOT}"
else
    echo "${VIRTUAL_ENV} belongs to the checkout ${installed} and keeps it; this shell uses ${ROOT} (REINSTALL=1 gives it that)"
fi
stamp="${VIRTUAL_ENV}/.plumbline-installed${1:+-$1}"
wanted="$(cat requirements.txt pyproject.toml <(echo "${installed}") | sha256sum)"
if [[ -n "${REINSTALL:-}" || "$(cat "${stamp}" 2>/dev/null)" != "${wanted}" ]]; then
    echo "installing requirements.txt${1:+ and the extra '$1'} into ${VIRTUAL_ENV}"
    pip install --quiet --disable-pip-version-check -r <(grep -v '^-e ' requirements.txt) -e "${installed}${1:+[$1]}" || return
    echo "${wanted}" >"${stamp}"
fi
