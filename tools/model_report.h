#ifndef TOOLS_MODEL_REPORT_H_
#define TOOLS_MODEL_REPORT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/ternary_layout.h"
#include "model/model_config.h"
#include "model/model_source.h"
#include "model/stage_plan.h"

namespace tern {

// What there is to say about a model without running it.
struct ModelReport {
  struct Tokenizer {
    std::string kind;  // "gpt2 (llama-bpe)"
    int size = 0;      // 0 when it cannot be read
    int bos_id = -1;   // -1 when there is none
    bool adds_bos = false;
    std::vector<int> end_ids;
  };
  // All tensors of one type.
  struct TypeSum {
    std::string type;
    int count;
    int64_t elements;
    int64_t bytes;
  };
  struct Stage {
    StageRange range;
    int64_t weight_bytes;    // packed matrices, norms, head
    int64_t kv_token_bytes;  // keys and values of a token
  };
  // The cut into stages depends on how the head is kept.
  struct Plan {
    std::string head_mode;  // "stored", "int8"
    int64_t head_bytes;
    std::vector<Stage> stages;
  };

  std::string name;  // after the path
  std::string format;
  int64_t file_bytes = 0;
  uint64_t fingerprint = 0;
  ModelConfig config;
  bool has_chat_template = false;
  Tokenizer tokenizer;
  std::vector<TypeSum> types;  // most bytes first
  std::vector<ModelSource::TensorInfo> tensors;
  int64_t embedding_bytes = 0;   // read from the file, row by row
  int64_t kv_token_bytes = 0;    // of all layers
  int64_t kv_context_bytes = 0;  // of a full context, in whole blocks
  std::string weights_packing;   // "2bit"
  std::vector<Plan> plans;       // stored, int8
  std::vector<std::string> warnings;
};

// Opens a model and looks at it. What ModelSource::Open() says when it cannot
// be served; INVALID_ARGUMENT when it cannot be cut into `n_stages` stages. A
// tokenizer that cannot be read is a warning.
//
// packing: how the workers would pack ternary weights.
absl::StatusOr<ModelReport> MakeModelReport(
    const std::string& path, int n_stages,
    TernaryPacking packing = TernaryPacking::k2Bit);

// The report for people, with a line for each tensor or for each type alone.
std::string ReportText(const ModelReport& report, bool all_tensors);

// The same for programs: one JSON object, ending with a line break.
std::string ReportJson(const ModelReport& report, bool all_tensors);

}  // namespace tern

#endif  // TOOLS_MODEL_REPORT_H_
