#include "worker/packing_choice.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "kernels/isa.h"
#include "kernels/quantize.h"
#include "util/logging.h"
#include "util/status_macros.h"
#include "worker/huge_buffer.h"
#include "worker/machine.h"

namespace tern {
namespace {

// Twice the last cache, within these bounds.
constexpr size_t kLeastBytes = size_t{64} << 20;
constexpr size_t kMostBytes = size_t{512} << 20;
// Columns of a common model.
constexpr int kColumns = 2560;
// Passes over the weights; the best counts, since other work only slows.
constexpr int kPasses = 6;
// Another packing has to be so much faster than k2Bit.
constexpr double kMargin = 1.03;

size_t MeasuredBytes() {
  const size_t wanted = 2 * static_cast<size_t>(LastCacheBytes());
  return std::clamp(wanted, kLeastBytes, kMostBytes);
}

}  // namespace

absl::StatusOr<std::vector<PackingSpeed>> MeasurePackings(
    const Kernels& kernels, ThreadPool* pool) {
  const size_t bytes = MeasuredBytes();
  ASSIGN_OR_RETURN(const HugeBuffer weights,
                   HugeBuffer::Allocate(bytes, "measuring packings"));
  ASSIGN_OR_RETURN(const HugeBuffer activations,
                   HugeBuffer::Allocate(kColumns, "measuring packings"));
  // No kernel takes longer for one weight than for another, so that any bytes
  // will do, and the same for all packings. The pages have to be written, else
  // they would all be the one page of zeros.
  constexpr size_t kPiece = size_t{1} << 20;
  pool->ParallelFor(static_cast<int64_t>(bytes / kPiece), 1,
                    [&](int64_t begin, int64_t end) {
                      std::fill(weights.data() + begin * kPiece,
                                weights.data() + end * kPiece, 0x55);
                    });
  std::fill(activations.data(), activations.data() + kColumns, 1);
  const float s = 1.0f;
  const int32_t sum = kColumns;
  const QuantizedTokens token = {
      reinterpret_cast<const int8_t*>(activations.data()), &s, &sum, 1,
      kColumns};

  std::vector<PackingSpeed> speeds;
  for (const TernaryPacking packing : kAllTernaryPackings) {
    if (kernels.has_packing(packing)) speeds.push_back({packing, 0});
  }
  std::vector<float> y;
  // In turns, so that what disturbs for a while disturbs all of them.
  for (int pass = 0; pass < kPasses; ++pass) {
    for (PackingSpeed& speed : speeds) {
      const int n_panels =
          static_cast<int>(bytes / PanelBytes(kColumns, speed.packing));
      const TernaryView view = {weights.data(), n_panels * kPanelRows, kColumns,
                                1.0f, speed.packing};
      y.resize(view.n_out);
      const absl::Time start = absl::Now();
      pool->ParallelFor(n_panels, 1, [&](int64_t begin, int64_t end) {
        kernels.ternary_matmul(
            view, token, static_cast<int>(begin) * kPanelRows,
            static_cast<int>(end) * kPanelRows, y.data(), y.size());
      });
      // A clock that stood still measures nothing; one nanosecond is less.
      const double seconds =
          std::max(absl::ToDoubleSeconds(absl::Now() - start), 1e-9);
      const double n_weights = static_cast<double>(view.n_out) * kColumns;
      speed.weights_per_second =
          std::max(speed.weights_per_second, n_weights / seconds);
    }
  }
  return speeds;
}

TernaryPacking FastestPacking(absl::Span<const PackingSpeed> speeds) {
  TernaryPacking fastest = TernaryPacking::k2Bit;
  double most = 0;
  for (const PackingSpeed& speed : speeds) {
    const bool is_2bit = speed.packing == TernaryPacking::k2Bit;
    const double counted = speed.weights_per_second * (is_2bit ? kMargin : 1);
    if (counted > most) {
      most = counted;
      fastest = speed.packing;
    }
  }
  return fastest;
}

absl::StatusOr<TernaryPacking> ChoosePacking(absl::string_view name,
                                             const Kernels& kernels,
                                             ThreadPool* pool) {
  // The oracle's speed matters to nobody, and would take minutes to measure.
  if (name == "auto" && kernels.isa == Isa::kRef) return TernaryPacking::k2Bit;
  if (name == "auto") {
    const absl::Time start = absl::Now();
    ASSIGN_OR_RETURN(const std::vector<PackingSpeed> speeds,
                     MeasurePackings(kernels, pool));
    const TernaryPacking packing = FastestPacking(speeds);
    std::string measured;
    for (const PackingSpeed& speed : speeds) {
      absl::StrAppend(&measured, " ", TernaryPackingName(speed.packing), "=",
                      static_cast<int64_t>(speed.weights_per_second / 1e6));
    }
    LOG(INFO) << "event=packing_chosen packing=" << TernaryPackingName(packing)
              << " threads=" << pool->size()
              << " took_ms=" << absl::ToInt64Milliseconds(absl::Now() - start)
              << " million_weights_per_second:" << measured;
    return packing;
  }
  TernaryPacking packing;
  if (ParseTernaryPacking(name, &packing) && kernels.has_packing(packing)) {
    return packing;
  }
  std::vector<absl::string_view> names = {"auto"};
  for (const TernaryPacking each : kAllTernaryPackings) {
    if (kernels.has_packing(each)) names.push_back(TernaryPackingName(each));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("weights cannot be packed as \"", name,
                   "\"; instruction set ", IsaName(kernels.isa),
                   " of this machine has ", absl::StrJoin(names, ", ")));
}

}  // namespace tern
