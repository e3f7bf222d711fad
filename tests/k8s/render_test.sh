#!/bin/sh
# usage: render_test.sh SCRIPT KUSTOMIZATION_OF_THE_BASE PROGRAM...
set -eu
script=$1
manifests=$(dirname "$(dirname "$2")")
shift 2
exec python3 "$script" "$manifests" "$@"
