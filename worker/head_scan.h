#ifndef WORKER_HEAD_SCAN_H_
#define WORKER_HEAD_SCAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/head.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"
#include "worker/huge_buffer.h"
#include "worker/stage_profile.h"
#include "worker/thread_pool.h"
#include "worker/wanted_logits.h"

namespace tern {

// The logits of an int8 head, reading no more of it than they need.
//
// A few tokens of which only the highest logits are wanted take two passes: the
// upper plane bounds the logits of every group of rows, and the lower plane
// completes the groups that may hold a wanted one (docs/exactness.md, section
// 11). Where that does not pay, because the bounds leave too many groups, the
// next tokens take one pass over both planes; what is tried when changes the
// speed and no wanted logit.
//
// Not thread-safe, as the pool that it uses.
class HeadScan {
 public:
  // What two passes are for. More tokens, or more logits, leave so many groups
  // that they seldom pay.
  static constexpr int kTokensMax = 4;
  static constexpr int kTopKMax = 64;

  // `w` is copied, what it looks into borrowed; `pool` and `kernels` too.
  HeadScan(const Int8View& w, ThreadPool* pool, const Kernels* kernels);

  // Floats between the logits of two tokens.
  size_t stride() const { return stride_; }

  // Computes the logits that are wanted of each token; others are exact, or the
  // lowest finite float.
  //
  // wanted: one for each token of x.
  // logits: float [x.n_tokens, stride()]; of each token the first n_rows count.
  // profile: null for none.
  void Compute(const QuantizedTokens& x, absl::Span<const WantedLogits> wanted,
               float* logits, StageProfile* profile);

 private:
  bool CanTakeTwoPasses(const QuantizedTokens& x,
                        absl::Span<const WantedLogits> wanted) const;
  void ComputeAll(const QuantizedTokens& x, float* logits);
  // The two passes.
  void ComputeBounds(const QuantizedTokens& x, float* logits);
  void ComputeWanted(const QuantizedTokens& x,
                     absl::Span<const WantedLogits> wanted, float* logits);
  // A logit that is reached by at least wanted.top_k of token t, so that what
  // lies below it is not wanted. Completes some groups to find one.
  float Threshold(const QuantizedTokens& x, int t, const WantedLogits& wanted,
                  float* logits);
  // Decides what the next tokens take.
  void Learn();

  int32_t* sums() const { return reinterpret_cast<int32_t*>(sums_.data()); }
  float* bounds(int t) const {
    return reinterpret_cast<float*>(bounds_.data()) +
           t * (stride_ / kHeadGroupRows);
  }

  const Int8View w_;
  ThreadPool* const pool_;
  const Kernels& kernels_;
  const size_t stride_;
  const int n_groups_;
  float scale_max_ = 0;

  HugeBuffer sums_;                  // int32 [kTokensMax, stride]
  HugeBuffer bounds_;                // float [kTokensMax, stride / 4]
  std::vector<int32_t> best_;        // groups with the highest bounds
  std::vector<float> best_logits_;   // of their rows
  std::vector<int32_t> candidates_;  // groups to complete

  int n_to_skip_ = 0;  // calls until two passes are tried again
  int n_skipped_ = 0;  // calls between the last two tries
};

}  // namespace tern

#endif  // WORKER_HEAD_SCAN_H_
