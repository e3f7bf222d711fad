#ifndef WORKER_STAGE_PROFILE_H_
#define WORKER_STAGE_PROFILE_H_

#include <array>
#include <chrono>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace tern {

// The operations of a stage's graph. What only passes over a token (gating,
// residuals but the last layer's) counts to the norm that follows it.
enum class StageOp {
  kEmbed,
  kNormAndQuantize,
  kQkv,
  kRopeAndStore,
  kAttention,
  kOutput,  // of the attention
  kGateAndUp,
  kDown,
  kResidual,
  kHead,            // in one pass
  kHeadBounds,      // the first of two
  kHeadCandidates,  // the second
};
inline constexpr int kStageOpCount =
    static_cast<int>(StageOp::kHeadCandidates) + 1;

// Such as "attention"; for people.
absl::string_view StageOpName(StageOp op);

// Where the time of a stage went, by operation: wall time as the runner thread
// sees it, waits for the other threads included. Not thread-safe.
class StageProfile {
 public:
  void Add(StageOp op, std::chrono::nanoseconds time) {
    ns_[static_cast<int>(op)] += time.count();
  }
  double milliseconds(StageOp op) const {
    return ns_[static_cast<int>(op)] * 1e-6;
  }
  double total_milliseconds() const;

  // Of a head computed in two passes (worker/head_scan.h): how many of its
  // groups of rows the second one read.
  void AddHeadCandidates(int64_t n_candidates, int64_t n_groups) {
    head_candidates_ += n_candidates;
    head_groups_ += n_groups;
  }
  // Their share; 0 when there were none.
  double head_candidate_share() const {
    return head_groups_ == 0 ? 0
                             : static_cast<double>(head_candidates_) /
                                   static_cast<double>(head_groups_);
  }

 private:
  std::array<int64_t, kStageOpCount> ns_{};
  int64_t head_candidates_ = 0;
  int64_t head_groups_ = 0;
};

// Adds the time of its own life to a profile; without one reads no clock.
class StageTimer {
 public:
  StageTimer(StageProfile* profile, StageOp op) : profile_(profile), op_(op) {
    if (profile_ != nullptr) begin_ = std::chrono::steady_clock::now();
  }
  ~StageTimer() {
    if (profile_ != nullptr) {
      profile_->Add(op_, std::chrono::steady_clock::now() - begin_);
    }
  }
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

 private:
  StageProfile* const profile_;
  const StageOp op_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace tern

#endif  // WORKER_STAGE_PROFILE_H_
