#!/bin/sh
# forbid.sh DEPS PATTERN...: fails when a line of DEPS matches a PATTERN, or when
# DEPS is empty (a query that finds nothing proves nothing).
deps=$1
shift
if ! [ -s "$deps" ]; then
  echo "$deps is empty" >&2
  exit 1
fi
bad=0
for pattern; do
  if grep -E "$pattern" "$deps"; then
    echo "forbidden edge: $pattern" >&2
    bad=1
  fi
done
exit $bad
