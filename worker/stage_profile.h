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
  kHead,
};
inline constexpr int kStageOpCount = static_cast<int>(StageOp::kHead) + 1;

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

 private:
  std::array<int64_t, kStageOpCount> ns_{};
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
