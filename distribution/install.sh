#!/bin/sh
# Installs HealthFM from this folder, without a network.
#   sh install.sh --prefix /opt/healthfm [--python python3.11] [--allowed-signers FILE] [--account NAME]
#   sh install.sh --prefix /opt/healthfm --uninstall
# Stores, keys and logs are elsewhere and never touched. What an older release left in the prefix is
# kept beside it until this one works (PREFIX.previous), and comes back where it does not.
set -eu
umask 022 # whoever is to run it has to be able to read it
export PIP_CONFIG_FILE=/dev/null

prefix=/opt/healthfm
python=
signers=
account=
uninstall=
wanted=$(cat "$(dirname "$0")/python-version")
here=$(cd "$(dirname "$0")" && pwd)

say() { printf '%s\n' "$*"; }
fail() {
    say "HealthFM is not installed: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --uninstall)
        uninstall=yes
        shift
        continue
        ;;
    --prefix | --python | --allowed-signers | --account)
        [ $# -ge 2 ] || fail "$1 wants a value"
        ;;
    *) fail "$1 is no option; there are --prefix, --python, --allowed-signers, --account, --uninstall" ;;
    esac
    case $1 in
    --prefix) prefix=$2 ;;
    --python) python=$2 ;;
    --allowed-signers) signers=$2 ;;
    --account) account=$2 ;;
    esac
    shift 2
done
case $prefix in
/*) ;;
*) fail "--prefix $prefix: give a whole path, as /opt/healthfm" ;;
esac
ours() { [ -f "$1/healthfm-bundle" ]; }

if [ -n "$uninstall" ]; then
    ours "$prefix" || fail "$prefix was not made by this installer, so it is not removed"
    rm -rf "$prefix" "$prefix.previous"
    say "Removed $prefix. Stores, studies, sites' folders and the account are as they were."
    exit 0
fi
if [ -e "$prefix" ] && ! ours "$prefix"; then
    fail "$prefix exists and was not made by this installer; give another --prefix"
fi

cd "$here"
if [ -n "$signers" ]; then
    [ -f SHA256SUMS.sig ] || fail "this bundle is not signed (SHA256SUMS.sig is missing)"
    command -v ssh-keygen >/dev/null || fail "ssh-keygen (OpenSSH 8.1 or later) checks signatures"
    who=$(ssh-keygen -Y find-principals -s SHA256SUMS.sig -f "$signers" 2>/dev/null | head -n 1)
    [ -n "$who" ] || fail "nobody named in $signers signed this bundle"
    ssh-keygen -Y verify -f "$signers" -I "$who" -n healthfm -s SHA256SUMS.sig <SHA256SUMS \
        >/dev/null 2>&1 || fail "the signature of SHA256SUMS is not $who's; do not use this bundle"
    say "Signed by $who."
else
    say "The signature was not checked (--allowed-signers FILE checks it)."
fi
sha256sum --quiet --check SHA256SUMS ||
    fail "a file is not the one that was packed (see above); copy the bundle again"
listed=$(cut -c 67- SHA256SUMS | LC_ALL=C sort)
there=$(find . -type f ! -name SHA256SUMS ! -name SHA256SUMS.sig | cut -c 3- | LC_ALL=C sort)
[ "$listed" = "$there" ] ||
    fail "files lie here that SHA256SUMS does not name; unpack the bundle into an empty folder"

for one in $python "python$wanted" python3 python; do
    seen=$("$one" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    [ "$seen" = "$wanted" ] && found=$one && break
    [ -z "$python" ] || fail "$python is Python $seen; this bundle is for Python $wanted"
done
[ -n "${found:-}" ] || fail "this bundle is for Python $wanted, which is not here; install it, or name it: --python PATH"
machine=$("$found" -c 'import platform; print(platform.system().lower() + "_" + platform.machine())')
[ "$machine" = "$(cat platform)" ] || fail "this bundle is for $(cat platform); this machine is $machine"

if [ -n "$account" ] && ! id "$account" >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || fail "the account $account does not exist, and only root makes accounts"
    useradd --system --user-group --create-home --home-dir "/var/lib/$account" \
        --shell /usr/sbin/nologin "$account" || fail "the account $account could not be made"
    chmod 700 "/var/lib/$account"
    say "Made the account $account, which nobody can log in to; its folder is /var/lib/$account."
fi

rm -rf "$prefix.previous"
[ ! -e "$prefix" ] || mv "$prefix" "$prefix.previous"
back() {
    rm -rf "$prefix"
    [ ! -e "$prefix.previous" ] || mv "$prefix.previous" "$prefix"
    fail "$*; what was there before is as it was"
}
"$found" -m venv "$prefix" || back "Python's venv module is missing (Debian: python$wanted-venv)"
"$prefix/bin/python" -m pip --disable-pip-version-check --quiet --isolated install \
    --no-index --no-cache-dir --find-links wheels --require-hashes -r requirements.txt ||
    back "a package could not be installed"
"$prefix/bin/python" -m pip --disable-pip-version-check --quiet check || back "packages do not fit"
version=$("$prefix/bin/healthfm-client" --version) || back "the installed commands do not start"
cp version "$prefix/healthfm-bundle"
rm -rf "$prefix.previous"
say "Installed $version in $prefix (bundle $(cat version))."
if [ -n "$account" ]; then
    say "Run its commands as $account: sudo -u $account $prefix/bin/healthfm-client ..."
fi
say "Next: $prefix/bin/healthfm-client doctor, and docs/install.md"
