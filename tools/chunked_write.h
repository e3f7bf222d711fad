#ifndef TOOLS_CHUNKED_WRITE_H_
#define TOOLS_CHUNKED_WRITE_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/gguf_writer.h"
#include "model/ternary_codec.h"
#include "tools/progress.h"
#include "worker/thread_pool.h"

namespace tern {

// Writes bytes that are made in chunks, several at a time on the threads of
// `pool`, in the order of the chunks. Memory stays within some chunks a thread.
//
// make: fills `out`, which is empty, with a chunk's bytes; called from any
//       thread of the pool, each chunk once. The first error ends it all.
// CANCELLED when `progress` says so; it hears the bytes of the whole file.
absl::Status WriteChunks(
    GgufWriter* writer, ThreadPool* pool, int64_t n_chunks,
    absl::FunctionRef<absl::Status(int64_t chunk, std::vector<uint8_t>* out)>
        make,
    ProgressFn progress);

// The same for bytes that are there.
absl::Status CopyChunks(absl::Span<const uint8_t> data, GgufWriter* writer,
                        ThreadPool* pool, ProgressFn progress);

// Weights of a ternary matrix that make a good chunk; whole blocks.
inline constexpr int64_t kTernaryChunkWeights = int64_t{1} << 20;

// "i2_s", "tq1_0", "tq2_0"; false for other names.
bool ParseTernaryFormat(absl::string_view name, TernaryFormat* format);

}  // namespace tern

#endif  // TOOLS_CHUNKED_WRITE_H_
