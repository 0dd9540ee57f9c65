#!/bin/sh
# Makes /opt/build: a pip of its own for the build stages of our images, which trusts the *.crt beside this script too.
set -eu
here="$(dirname "$0")"

python3 -m venv /opt/build
# What pip trusts by itself, what the base image trusts, and the company's: a file that is named replaces all others.
{
    cat "$(/opt/build/bin/python -c 'from pip._vendor import certifi; print(certifi.where())')"
    for bundle in /etc/ssl/certs/ca-certificates.crt "$here"/ca/*.crt; do
        if [ -f "$bundle" ]; then
            echo
            cat "$bundle"
        fi
    done
} > /opt/build/ca.pem
