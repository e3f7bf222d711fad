#include "worker/head_scan.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>

#include "util/logging.h"

namespace tern {
namespace {

// Two passes over more than this share of the groups pay no more than their own
// cost.
constexpr double kCandidateShareMax = 0.75;

// Calls with one pass between two tries that did not pay, at most: so many that
// the tries cost next to nothing.
constexpr int kSkippedMax = 64;

HugeBuffer AllocateRoom(size_t bytes) {
  auto room = HugeBuffer::Allocate(bytes, "the head's bounds");
  // A few megabytes, as any vector here.
  CHECK(room.ok()) << room.status().ToString();
  return std::move(room).value();
}

}  // namespace

HeadScan::HeadScan(const Int8View& w, ThreadPool* pool, const Kernels* kernels)
    : w_(w),
      pool_(pool),
      kernels_(*kernels),
      stride_(size_t{kHeadPanelRows} * HeadPanelCount(w.n_rows)),
      n_groups_(HeadGroupCount(w.n_rows)),
      sums_(AllocateRoom(kTokensMax * stride_ * sizeof(int32_t))),
      bounds_(
          AllocateRoom(kTokensMax * stride_ / kHeadGroupRows * sizeof(float))) {
  if (w.n_rows > 0) {
    scale_max_ = *std::max_element(w.row_scale, w.row_scale + w.n_rows);
  }
  candidates_.reserve(n_groups_);
}

void HeadScan::Compute(const QuantizedTokens& x,
                       absl::Span<const WantedLogits> wanted, float* logits,
                       StageProfile* profile) {
  DCHECK(static_cast<int>(wanted.size()) == x.n_tokens);
  const bool can_take_two = CanTakeTwoPasses(x, wanted);
  if (!can_take_two || n_to_skip_ > 0) {
    if (can_take_two) --n_to_skip_;
    const StageTimer timer(profile, StageOp::kHead);
    ComputeAll(x, logits);
    return;
  }
  {
    const StageTimer timer(profile, StageOp::kHeadBounds);
    ComputeBounds(x, logits);
  }
  {
    const StageTimer timer(profile, StageOp::kHeadCandidates);
    ComputeWanted(x, wanted, logits);
  }
  if (profile != nullptr) {
    profile->AddHeadCandidates(static_cast<int64_t>(candidates_.size()),
                               n_groups_);
  }
  Learn();
}

bool HeadScan::CanTakeTwoPasses(const QuantizedTokens& x,
                                absl::Span<const WantedLogits> wanted) const {
  if (x.n_tokens > kTokensMax || x.n > kHeadBoundColumnsMax) return false;
  for (int t = 0; t < x.n_tokens; ++t) {
    const int32_t k = wanted[t].top_k;
    if (k < 1 || k > kTopKMax || k >= n_groups_) return false;
    // An infinite logit is an error that must show, even a negative one. No sum
    // is beyond int32, so that here none can be infinite.
    if (!std::isfinite(0x1p31f / x.s[t] * scale_max_)) return false;
  }
  return true;
}

void HeadScan::ComputeAll(const QuantizedTokens& x, float* logits) {
  pool_->ParallelFor(
      w_.n_rows, kHeadPanelRows, [&](int64_t begin, int64_t end) {
        kernels_.head_int8(w_, x, static_cast<int>(begin),
                           static_cast<int>(end), logits, stride_);
      });
}

void HeadScan::ComputeBounds(const QuantizedTokens& x, float* logits) {
  float x_norm[kTokensMax];
  for (int t = 0; t < x.n_tokens; ++t) {
    const int8_t* const q = x.q + static_cast<size_t>(t) * x.n;
    int64_t squares = 0;
    for (int k = 0; k < x.n; ++k) squares += q[k] * q[k];
    x_norm[t] = NormAbove(squares);
  }
  pool_->ParallelFor(
      HeadPanelCount(w_.n_rows), 1, [&](int64_t begin, int64_t end) {
        kernels_.head_int8_bounds(w_, x, x_norm, static_cast<int>(begin),
                                  static_cast<int>(end), sums(), bounds(0),
                                  stride_);
        for (int t = 0; t < x.n_tokens; ++t) {
          float* const of_token = logits + t * stride_;
          std::fill(of_token + begin * kHeadPanelRows,
                    of_token + end * kHeadPanelRows,
                    std::numeric_limits<float>::lowest());
        }
      });
}

void HeadScan::ComputeWanted(const QuantizedTokens& x,
                             absl::Span<const WantedLogits> wanted,
                             float* logits) {
  float threshold[kTokensMax];
  for (int t = 0; t < x.n_tokens; ++t) {
    threshold[t] = Threshold(x, t, wanted[t], logits);
  }
  candidates_.clear();
  for (int group = 0; group < n_groups_; ++group) {
    bool may_be_wanted = false;
    for (int t = 0; t < x.n_tokens; ++t) {
      may_be_wanted |= bounds(t)[group] >= threshold[t];
    }
    if (may_be_wanted) candidates_.push_back(group);
  }
  pool_->ParallelFor(static_cast<int64_t>(candidates_.size()), 1,
                     [&](int64_t begin, int64_t end) {
                       kernels_.head_int8_groups(w_, x, &candidates_[begin],
                                                 static_cast<int>(end - begin),
                                                 sums(), logits, stride_);
                     });
}

float HeadScan::Threshold(const QuantizedTokens& x, int t,
                          const WantedLogits& wanted, float* logits) {
  // Any k logits have a lowest one that k logits reach. Those of the groups
  // with the highest bounds, a row at least in each, make it a high one.
  const size_t k = wanted.top_k;
  const float* const bound = bounds(t);
  const size_t room = std::max<size_t>(2 * k, 64);
  float bar = -std::numeric_limits<float>::infinity();  // to be exceeded
  best_.clear();
  const auto cut = [&] {
    std::nth_element(
        best_.begin(), best_.begin() + (k - 1), best_.end(),
        [bound](int32_t a, int32_t b) { return bound[a] > bound[b]; });
    best_.resize(k);
    bar = bound[best_.back()];
  };
  for (int32_t group = 0; group < n_groups_; ++group) {
    if (!(bound[group] > bar)) continue;
    best_.push_back(group);
    if (best_.size() == room) cut();
  }
  if (best_.size() > k) cut();

  // Too few to share out.
  kernels_.head_int8_groups(w_, x, best_.data(), static_cast<int>(best_.size()),
                            sums(), logits, stride_);
  best_logits_.clear();
  for (const int32_t group : best_) {
    const int first = group * kHeadGroupRows;
    const int last = std::min(first + kHeadGroupRows, w_.n_rows);
    const float* const of_token = logits + t * stride_;
    best_logits_.insert(best_logits_.end(), of_token + first, of_token + last);
  }
  std::nth_element(best_logits_.begin(), best_logits_.begin() + (k - 1),
                   best_logits_.end(), std::greater<float>());
  return LowestWithSameZ(best_logits_[k - 1], wanted.temperature);
}

void HeadScan::Learn() {
  const bool pays =
      static_cast<double>(candidates_.size()) <= kCandidateShareMax * n_groups_;
  n_skipped_ = pays ? 0 : std::min(std::max(2 * n_skipped_, 1), kSkippedMax);
  n_to_skip_ = n_skipped_;
}

}  // namespace tern
