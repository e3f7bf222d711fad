#ifndef TESTS_PARITY_WHOLE_MODEL_H_
#define TESTS_PARITY_WHOLE_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "model/model_config.h"
#include "worker/kv_cache.h"
#include "worker/stage.h"
#include "worker/thread_pool.h"

namespace tern {

// A model as one stage with one sequence: token ids in, logits out. Not
// thread-safe.
class WholeModel {
 public:
  static absl::StatusOr<std::unique_ptr<WholeModel>> Load(
      const std::string& path, HeadMode head_mode, Isa isa, int n_threads);

  // Appends tokens to the sequence and returns the logits [vocab_size] after
  // the last one. The context length is the caller's to respect.
  std::vector<float> Append(absl::Span<const int32_t> tokens);

  // Starts a new sequence.
  void Reset();

  const ModelConfig& config() const { return config_; }

 private:
  explicit WholeModel(int n_threads) : pool_(n_threads) {}

  ThreadPool pool_;
  ModelConfig config_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<Stage> stage_;
  int n_tokens_ = 0;
};

}  // namespace tern

#endif  // TESTS_PARITY_WHOLE_MODEL_H_
