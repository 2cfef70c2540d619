#!/bin/sh
# Installs the package in /mnt, runs it as its service would, and removes it again. Every line must do.
set -eux
unit=/usr/lib/systemd/system/steadfast.service
config=/etc/steadfast/steadfast.toml
data=/var/lib/steadfast
broker=
trap '[ -z "$broker" ] || kill -9 "$broker"; [ ! -e /tmp/log ] || cat /tmp/log' EXIT

# What the unit states of a key.
stated() { sed -n "s/^$1=//p" "$unit"; }

# Becomes a command as the service manager would run it, but for what confines it. For subshells.
as_service() {
    exec setpriv --reuid "$(stated User)" --regid "$(stated Group)" --clear-groups \
        env -i PATH=/usr/bin "$(stated Environment)" "$@"
}

start() {
    : >/tmp/log
    # shellcheck disable=SC2046
    as_service $(stated ExecStart) >/tmp/log 2>&1 &
    broker=$!
    tries=0
    until grep -q '^listening on ' /tmp/log; do
        kill -0 "$broker"
        tries=$((tries + 1))
        [ "$tries" -lt 300 ]
        sleep 0.1
    done
    address=$(sed -n 's/^listening on //p' /tmp/log)
}

stop() {
    kill -TERM "$broker"
    # `set -e` holds for its exit code: 0.
    wait "$broker"
    broker=
}

export STEADFAST_CONFIG=$config

dpkg -i /mnt/steadfast_*.deb
dpkg -V steadfast
id steadfast
[ "$(stat -c '%U:%G %a' $data)" = 'steadfast:steadfast 700' ]
steadfast config check
for path in /usr/share/man/man1/steadfast.1.gz /usr/share/man/man1/steadfast-queue-purge.1.gz \
    /usr/share/bash-completion/completions/steadfast /usr/share/doc/steadfast/copyright; do
    dpkg -L steadfast | grep -qx "$path"
done
if [ -n "$(systemd-analyze verify "$unit" 2>&1 | tee /tmp/verified | grep steadfast)" ]; then
    cat /tmp/verified
    exit 1
fi
# 0 is a service that can do nothing, 10 one that can do everything; `--threshold` is in tenths.
systemd-analyze security --offline=true --threshold=20 "$unit" >/dev/null

# A change of the administrator: any port.
sed -i 's/^#listen = .*/listen = ["127.0.0.1:0"]/' $config
steadfast config show --changed | grep -q '^listen = \["127.0.0.1:0"\]'
start
steadfast send --addr "$address" /queue/a one
steadfast send --addr "$address" /queue/a two
[ "$(steadfast receive --addr "$address" /queue/a --count 1)" = one ]
steadfast status | grep -q "$data"
# shellcheck disable=SC2046
[ "$(as_service $(stated ExecReload))" = 'nothing has changed' ]
# Users are of the broker's user, whoever adds them.
echo 'one that is long' | steadfast user add alice --password-stdin
[ "$(stat -c '%U:%G %a' $data/users.toml)" = 'steadfast:steadfast 600' ]
# shellcheck disable=SC2046
(as_service $(stated ExecReload))
if steadfast send --addr "$address" /queue/a nobody; then exit 1; fi
export STEADFAST_PASSCODE='one that is long'
steadfast send --addr "$address" --login alice /queue/b hers
[ "$(steadfast receive --addr "$address" --login alice /queue/b --count 1)" = hers ]
unset STEADFAST_PASSCODE
# A mistake is refused with its line, and changes nothing.
cp $config /tmp/good
printf '[limits]\nbody_bytes_max = 0\n' >>$config
# shellcheck disable=SC2046
if (as_service $(stated ExecReload)) 2>/tmp/refused; then exit 1; fi
grep -q "^error: $config, line .*: limits.body_bytes_max = 0 is not allowed" /tmp/refused
cp /tmp/good $config
stop
[ "$(stat -c %U $data/db)" = steadfast ]
rm $data/users.toml

# An upgrade keeps configuration and messages.
dpkg -i /mnt/steadfast_*.deb
grep -q '^listen = \["127.0.0.1:0"\]' $config
start
[ "$(steadfast receive --addr "$address" /queue/a --count 1)" = two ]
steadfast send --addr "$address" /queue/a three
stop

dpkg -r steadfast
[ ! -e /usr/bin/steadfast ] && [ ! -e "$unit" ] && [ -e $config ] && [ -e $data/db ]
dpkg -P steadfast
[ ! -e /etc/steadfast ] && [ -e $data/db ]
rm -f /tmp/log
