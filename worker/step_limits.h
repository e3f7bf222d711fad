#ifndef WORKER_STEP_LIMITS_H_
#define WORKER_STEP_LIMITS_H_

#include <cstdint>
#include <string>

namespace tern {

// What plans for a loaded stage must keep to.
struct StepLimits {
  // Must be the plan's own.
  std::string model;
  std::string pipeline_id;
  int64_t epoch;
  std::string numerics_id;

  int32_t vocab_size;
  int32_t context_length;
  int32_t kv_block_count;
  int32_t max_step_tokens;
  // Whether sampler parameters are needed.
  bool is_last_stage;
  // Of the pipeline.
  int32_t stage_count = 1;
};

}  // namespace tern

#endif  // WORKER_STEP_LIMITS_H_
