#!/bin/sh
# Builds the image and runs it as one container with 0.5 CPU and 512 MB, its database on a named volume: sh deploy.sh
#
# Settings come from the environment, else from the .env beside this file, as for `forebay serve`.
# DEPLOY_NAME (forebay) names the container and the image; its volume is that name with -data.
set -eu

fail() {
    printf 'deploy.sh: %s\n' "$1" >&2
    exit 1
}

# Forebay's own rule: an empty variable counts as not set.
setting() {
    value=$(printenv "$1") || value=
    if [ -z "$value" ] && [ -f .env ]; then
        value=$(sed -n "s/^$1=//p" .env | tail -n 1 | tr -d '\r')
    fi
    printf '%s' "${value:-$2}"
}

command -v docker >/dev/null 2>&1 || fail 'docker is not installed, or not on PATH'
cd "$(dirname "$0")"
docker info >/dev/null 2>&1 || fail "docker's engine does not answer: is it running, and may this user use it?"

# Forebay reads .env as dotenv does and would take these lines otherwise than docker does, which passes on all after the
# first "=" and quotes what it can't read in its error. So only the line's number is said, as it may hold a secret.
if [ -f .env ]; then
    line=$(awk '
        { sub(/\r$/, "") }
        /^[ \t]*(#|$)/ { next }
        !/^[A-Za-z_][A-Za-z0-9_]*(=|$)/ { print NR; exit }
        { sub(/^[^=]*=?/, "") }
        /^["\047 \t]|[ \t]#|[ \t]$/ { print NR; exit }
    ' .env)
    [ -z "$line" ] || fail ".env, line $line: docker takes NAME=value only, without quotes, spaces or comments"
fi

name=${DEPLOY_NAME:-forebay}
port=$(setting SERVER_PORT 3000)
case $port in
'' | *[!0-9]* | 0* | ??????*) port=65536 ;;
esac
[ "$port" -le 65535 ] || fail 'SERVER_PORT must be a port from 1 to 65535; it is published under the same number'
deadline=$(setting FOREBAY_SHUTDOWN_TIMEOUT_S 20)
deadline=${deadline%%.*}
case $deadline in
'' | *[!0-9]* | 0?* | ??????*) fail 'FOREBAY_SHUTDOWN_TIMEOUT_S must be a number of seconds' ;;
esac
if [ "$(setting SERVER_ENVIRONMENT local)" != local ] && [ -z "$(setting JWT_SECRET '')" ]; then
    fail 'JWT_SECRET is not set; it may be left out only with SERVER_ENVIRONMENT=local (openssl rand -hex 32 makes one)'
fi

# With its name alone, docker takes a variable's value from the environment, where no list of processes shows it.
set --
if [ -f .env ]; then
    set -- --env-file .env
fi
for variable in OPEN_SEARCH_DNS JWT_SECRET SERVER_ENVIRONMENT $(env | sed -n 's/^\(FOREBAY_[A-Z0-9_]*\)=.*/\1/p'); do
    if [ "$variable" != FOREBAY_HOST ] && [ -n "$(printenv "$variable")" ]; then
        set -- "$@" --env "$variable"
    fi
done
# These three are facts of the container: the address and port that are published, and the place of the volume.
set -- "$@" --env FOREBAY_HOST=0.0.0.0 --env SERVER_PORT="$port" --env DATABASE_URL=sqlite:////data/forebay.db

docker build --tag "$name" . || fail 'the image was not built; a container that ran before still runs'

# What the new image refuses to start with is found while the old container still takes events. Some of it lies in files,
# so it has the same volume, which it may only read: the old container owns the spool.
docker run --rm --volume "$name-data:/data:ro" "$@" --entrypoint python "$name" -c '
from forebay.cli import serve
from forebay.errors import SettingsError
try:
    serve.check()
except SettingsError as error:
    raise SystemExit(str(error))
' >/dev/null || fail 'the settings are not usable; a container that ran before still runs'

# The spool has one owner at a time, so the old container ends before the new one starts. `docker stop` waits as long as
# that container was told to at its start, for Forebay to deliver what is in memory; the rest stays in the spool.
if docker container inspect "$name" >/dev/null 2>&1; then
    docker stop "$name" >/dev/null || fail "the container $name could not be stopped"
    docker rm "$name" >/dev/null || fail "the container $name could not be removed"
fi

# Ten seconds over Forebay's own deadline: docker's kill must not come first.
# The log is bounded, since it may share its disk with the spool.
docker run --detach --name "$name" \
    --cpus 0.5 --memory 512m \
    --restart unless-stopped --stop-timeout $((deadline + 10)) --init \
    --cap-drop ALL --security-opt no-new-privileges \
    --log-driver json-file --log-opt max-size=10m --log-opt max-file=3 \
    --volume "$name-data:/data" --publish "$port:$port" \
    "$@" "$name" >/dev/null || fail "the container $name did not start"

waited=0
while :; do
    state=$(docker container inspect --format '{{.State.Health.Status}} {{.RestartCount}}' "$name") || state=gone
    case $state in
    'healthy 0') break ;;
    'starting 0') ;;
    *) fail "$name does not stay up ($state); see: docker logs $name" ;;
    esac
    [ "$waited" -lt 90 ] || fail "$name is not healthy after $waited seconds; see: docker logs $name"
    sleep 1
    waited=$((waited + 1))
done
printf 'Forebay is up: http://localhost:%s (docker logs %s)\n' "$port" "$name"
