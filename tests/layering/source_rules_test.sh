#!/bin/bash
# Rules of the house that are about words in source files. Runs on the real
# tree, found through the link to README.md among the test's data.
set -u
root=$(dirname "$(readlink -f README.md)")
cd "$root" || exit 1
rooms=(bench blob cli client coordinator kernels model tests tools util worker)
bad=0

# rule WHY PATTERN ALLOWED: no source file outside ALLOWED (a regular expression
# over paths) has a line that matches PATTERN.
rule() {
  local found
  found=$(grep -rnE --include='*.h' --include='*.cc' --include='*.cu' \
    --include='*.cuh' "$2" "${rooms[@]}" | grep -vE "^($3)[^:]*:" || true)
  if [[ -n $found ]]; then
    echo "$found"
    echo "rule: $1" >&2
    echo >&2
    bad=1
  fi
}

# A rule that nothing can break checks nothing: the scan must see the tree.
count=$(find "${rooms[@]}" -name '*.cc' | wc -l)
if [[ $count -lt 50 ]]; then
  echo "only $count source files under $root" >&2
  exit 1
fi

rule "generated protobuf headers stay at the edges" \
  '#include "proto/.*\.pb\.h"' \
  '[a-z]*/[a-z_]*(_service|_reactors?|_call|_proto|_test)\.|[a-z]*/grpc_|coordinator/(generation|request_validation)|worker/registration|[a-z]*/testing/|client/|cli/|tests/|bench/'
rule "CUDA and NCCL headers stay in .cu files" \
  '#include [<"](cuda_runtime|nccl)' \
  '[^:]*\.cuh?'
rule "channels and ports come from util/credentials" \
  '(Insecure|Ssl|Tls)(Channel|Server)?Credentials\(' \
  'util/credentials|[a-z]*/testing/|[a-z]*/[a-z_]*_test\.|tests/'
rule "tests wait for events, they do not sleep" \
  '(sleep_for|SleepFor|usleep|nanosleep)\(' \
  'bench/|client/client\.cc|util/clock'

# The pure core: no clock, no threads, no locks.
pure=(coordinator/block_manager coordinator/cluster_view coordinator/scheduler
  coordinator/sequence model/stage_plan worker/sampler)
for stem in "${pure[@]}"; do
  for file in "$stem.h" "$stem.cc"; do
    if ! [[ -f $file ]]; then
      echo "$file is gone; mend this list" >&2
      bad=1
    elif grep -nE 'absl::Now|util/clock\.h|<thread>|<mutex>|absl/synchronization|grpc' "$file"; then
      echo "rule: $file is pure" >&2
      bad=1
    fi
  done
done

exit $bad
