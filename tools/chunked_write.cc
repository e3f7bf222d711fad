#include "tools/chunked_write.h"

#include <algorithm>

#include "util/status_macros.h"

namespace tern {

absl::Status WriteChunks(
    GgufWriter* writer, ThreadPool* pool, int64_t n_chunks,
    absl::FunctionRef<absl::Status(int64_t chunk, std::vector<uint8_t>* out)>
        make,
    ProgressFn progress) {
  const int64_t together = 4 * static_cast<int64_t>(pool->size());
  std::vector<std::vector<uint8_t>> chunks(together);
  std::vector<absl::Status> statuses(together);
  for (int64_t begin = 0; begin < n_chunks; begin += together) {
    const int64_t n = std::min(together, n_chunks - begin);
    pool->ParallelForEach(n, [&](int64_t i, int) {
      chunks[i].clear();
      statuses[i] = make(begin + i, &chunks[i]);
    });
    for (int64_t i = 0; i < n; ++i) {
      RETURN_IF_ERROR(statuses[i]);
      RETURN_IF_ERROR(writer->Append(chunks[i]));
    }
    if (!progress(writer->written_bytes(), writer->file_bytes())) {
      return absl::CancelledError("interrupted; nothing was written");
    }
  }
  return absl::OkStatus();
}

absl::Status CopyChunks(absl::Span<const uint8_t> data, GgufWriter* writer,
                        ThreadPool* pool, ProgressFn progress) {
  constexpr int64_t kChunk = int64_t{1} << 20;
  const int64_t size = data.size();
  return WriteChunks(
      writer, pool, (size + kChunk - 1) / kChunk,
      [&](int64_t chunk, std::vector<uint8_t>* out) {
        const auto part = data.subspan(chunk * kChunk, kChunk);
        out->assign(part.begin(), part.end());
        return absl::OkStatus();
      },
      progress);
}

bool ParseTernaryFormat(absl::string_view name, TernaryFormat* format) {
  if (name == "i2_s") {
    *format = TernaryFormat::kI2S;
  } else if (name == "tq1_0") {
    *format = TernaryFormat::kTQ1_0;
  } else if (name == "tq2_0") {
    *format = TernaryFormat::kTQ2_0;
  } else {
    return false;
  }
  return true;
}

}  // namespace tern
