#ifndef WORKER_WEIGHT_FETCHER_H_
#define WORKER_WEIGHT_FETCHER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "worker/model_cache.h"
#include "worker/weight_source.h"

namespace tern {

struct FetchOptions {
  // Blocks that are fetched at a time; each takes 4 MiB of memory.
  int n_streams = 4;
  // For one block of a source that is not the last one; the last one has six
  // times as long, since there is nobody else to ask.
  absl::Duration read_timeout = absl::Seconds(10);
  // A block that nobody has given in so many rounds ends the fetch. The waits
  // between them double.
  int rounds_max = 6;
  absl::Duration first_wait = absl::Milliseconds(100);
};

// What a fetch has done.
struct FetchReport {
  std::map<std::string, int64_t> bytes_by_source;
  int64_t rechecked_bytes = 0;  // on disk, and still good
};

// Fetches the blocks that a replica lacks, several at a time, each from the
// first of `sources` that gives it right: a block is hashed before anything of
// it is written. Own files come first in the list and are asked first; of the
// others all but the last are asked in turns. One of them that sent wrong bytes
// is named in the log and not asked again; one that broke off or was too slow,
// for a while. What was fetched stays, whatever becomes of the rest.
//
// progress: told now and then, from this thread, of bytes done out of all that
//           were asked for.
// cancelled: asked now and then; once true, the result is CANCELLED.
//
// UNAVAILABLE when nobody gives a block, with what each source said;
// RESOURCE_EXHAUSTED when the disk is full.
// REQUIRES: no source is used elsewhere.
absl::StatusOr<FetchReport> FetchBlocks(
    CachedModel* replica, absl::Span<const int> blocks,
    const std::vector<std::shared_ptr<WeightSource>>& sources,
    const FetchOptions& options,
    const std::function<void(int64_t done_bytes, int64_t total_bytes)>&
        progress,
    const std::function<bool()>& cancelled);

}  // namespace tern

#endif  // WORKER_WEIGHT_FETCHER_H_
