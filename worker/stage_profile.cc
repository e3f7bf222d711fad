#include "worker/stage_profile.h"

namespace tern {

absl::string_view StageOpName(StageOp op) {
  switch (op) {
    case StageOp::kEmbed:
      return "embed";
    case StageOp::kNormAndQuantize:
      return "norm, quantise";
    case StageOp::kQkv:
      return "q, k, v";
    case StageOp::kRopeAndStore:
      return "rope, store";
    case StageOp::kAttention:
      return "attention";
    case StageOp::kOutput:
      return "output";
    case StageOp::kGateAndUp:
      return "gate, up";
    case StageOp::kDown:
      return "down";
    case StageOp::kResidual:
      return "residual";
    case StageOp::kHead:
      return "head";
    case StageOp::kHeadBounds:
      return "head, bounds";
    case StageOp::kHeadCandidates:
      return "head, candidates";
  }
  return "unknown";
}

double StageProfile::total_milliseconds() const {
  int64_t ns = 0;
  for (const int64_t n : ns_) ns += n;
  return ns * 1e-6;
}

}  // namespace tern
