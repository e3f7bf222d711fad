#include "tools/model_report.h"

#include <algorithm>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/optional.h"
#include "cli/text_table.h"
#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/ternary_layout.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "nlohmann/json.hpp"
#include "util/status_macros.h"

namespace tern {
namespace {

std::string TokenizerKind(const ModelSource& source) {
  std::string model, pre;
  for (const auto& pair : source.metadata()) {
    if (pair.first == "tokenizer.ggml.model") model = pair.second;
    if (pair.first == "tokenizer.ggml.pre") pre = pair.second;
  }
  if (model.empty())
    return source.format() == "GGUF" ? "none" : "tokenizer.json";
  return absl::StrCat(model, " (", pre.empty() ? "split not named" : pre, ")");
}

void LookAtTokenizer(const ModelSource& source, ModelReport* report) {
  report->tokenizer.kind = TokenizerKind(source);
  const auto tokenizer = source.LoadTokenizer();
  if (!tokenizer.ok()) {
    report->warnings.push_back(absl::StrCat("the tokenizer cannot be read: ",
                                            tokenizer.status().message()));
    return;
  }
  report->tokenizer.size = (*tokenizer)->vocab_size();
  report->tokenizer.bos_id = (*tokenizer)->bos_id();
  report->tokenizer.adds_bos = (*tokenizer)->adds_bos();
  report->tokenizer.end_ids.assign((*tokenizer)->end_ids().begin(),
                                   (*tokenizer)->end_ids().end());
  if (report->tokenizer.end_ids.empty()) {
    report->warnings.push_back(
        "the tokenizer names no token that ends a text: answers end at their "
        "limit alone");
  }
}

void LookAtChatTemplate(const ModelSource& source, ModelReport* report) {
  const absl::optional<std::string> chat_template = source.chat_template();
  report->has_chat_template = chat_template.has_value();
  // The published file of 2B-4T came with the template of another model.
  if (chat_template.has_value() &&
      absl::StartsWith(source.config().architecture, "bitnet-") &&
      absl::StrContains(*chat_template, "BITNETAssistant")) {
    report->warnings.push_back(
        "the chat template in the file (\"Human: ... BITNETAssistant: \") is "
        "not the one that the model was trained with");
  }
}

void SumTypes(ModelReport* report) {
  for (const ModelSource::TensorInfo& tensor : report->tensors) {
    int64_t elements = 1;
    for (int64_t n : tensor.shape) elements *= n;
    auto sum = std::find_if(
        report->types.begin(), report->types.end(),
        [&](const auto& type) { return type.type == tensor.type; });
    if (sum == report->types.end()) {
      sum = report->types.insert(sum, {tensor.type, 0, 0, 0});
    }
    ++sum->count;
    sum->elements += elements;
    sum->bytes += tensor.bytes;
  }
  std::stable_sort(
      report->types.begin(), report->types.end(),
      [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
}

absl::StatusOr<ModelReport::Plan> MakePlan(const ModelConfig& config,
                                           HeadMode mode,
                                           int64_t head_row_bytes,
                                           const PackedBlocks& blocks,
                                           int n_stages) {
  const bool is_int8 = mode == HeadMode::kInt8;
  ModelReport::Plan plan;
  plan.head_mode = std::string(HeadModeName(mode));
  plan.head_bytes = HeadBytes(config, is_int8, head_row_bytes);
  ASSIGN_OR_RETURN(
      const std::vector<StageRange> ranges,
      PlanStages(config, n_stages, is_int8, head_row_bytes, blocks));
  for (const StageRange& range : ranges) {
    const StageCost cost =
        CostOf(config, range, is_int8, head_row_bytes, kKvBlockSize, blocks);
    plan.stages.push_back(
        {range, cost.weight_bytes, cost.kv_block_bytes / kKvBlockSize});
  }
  return plan;
}

absl::Status LookAtMemory(const ModelSource& source, int n_stages,
                          TernaryPacking packing, ModelReport* report) {
  const PackedBlocks packed = {BlockColumns(packing), BlockBytes(packing)};
  report->weights_packing = std::string(TernaryPackingName(packing));
  const ModelConfig& config = source.config();
  ASSIGN_OR_RETURN(const DenseTensor embedding, source.FindEmbedding());
  ASSIGN_OR_RETURN(const DenseTensor head, source.FindHead());
  report->embedding_bytes = embedding.data.size();
  for (HeadMode mode : {HeadMode::kStored, HeadMode::kInt8}) {
    ASSIGN_OR_RETURN(
        ModelReport::Plan plan,
        MakePlan(config, mode, head.row_bytes(), packed, n_stages));
    report->plans.push_back(std::move(plan));
  }
  for (const ModelReport::Stage& stage : report->plans[0].stages) {
    report->kv_token_bytes += stage.kv_token_bytes;
  }
  const int64_t blocks =
      (config.context_length + kKvBlockSize - 1) / kKvBlockSize;
  report->kv_context_bytes = report->kv_token_bytes * blocks * kKvBlockSize;
  return absl::OkStatus();
}

const char* ActivationName(Activation activation) {
  return activation == Activation::kRelu2 ? "relu2" : "silu";
}

const char* RopeName(RopeKind kind) {
  return kind == RopeKind::kNeox ? "neox" : "norm";
}

std::string Shape(const std::vector<int64_t>& shape) {
  return absl::StrJoin(shape, " x ");
}

std::string LayersText(const StageRange& range) {
  return absl::StrCat(range.layer_begin, " to ", range.layer_end - 1,
                      range.has_embedding ? ", embedding" : "",
                      range.has_head ? ", head" : "");
}

class Lines {
 public:
  template <typename... Parts>
  void Add(const char* name, const Parts&... parts) {
    absl::StrAppend(&text_, absl::StrFormat("%-14s", name),
                    absl::StrCat(parts...), "\n");
  }
  std::string text_;
};

std::string SummaryText(const ModelReport& report) {
  const ModelConfig& c = report.config;
  const ModelReport::Tokenizer& t = report.tokenizer;
  Lines lines;
  lines.Add("model", report.name,
            c.name.empty() ? "" : absl::StrCat(" (", c.name, ")"));
  lines.Add("file", report.format, ", ", FormatBytes(report.file_bytes),
            ", fingerprint ", absl::StrFormat("%016x", report.fingerprint));
  lines.Add("architecture", c.architecture, ", ", c.n_layers, " layers");
  lines.Add("width", c.hidden_size, ", feed-forward ", c.ffn_size, " (",
            ActivationName(c.activation), ")");
  lines.Add("heads", c.n_heads, " of ", c.head_dim, ", ", c.n_kv_heads,
            " of keys and values");
  lines.Add("context", c.context_length, ", rope ", RopeName(c.rope_kind),
            " with theta ", c.rope_theta);
  lines.Add("norms", c.has_sub_norms ? "with" : "without", " sub-norms, eps ",
            c.norm_eps);
  lines.Add("vocabulary", c.vocab_size, ", head ",
            c.tied_head ? "tied to the embedding" : "of its own");
  lines.Add(
      "tokenizer", t.kind,
      t.size > 0
          ? absl::StrCat(
                ", ", t.size, " tokens, BOS ",
                t.bos_id < 0 ? "none" : absl::StrCat(t.bos_id),
                t.bos_id >= 0 && !t.adds_bos ? " (not added)" : "", ", end ",
                t.end_ids.empty() ? "none" : absl::StrJoin(t.end_ids, ", "))
          : "");
  lines.Add("chat template", report.has_chat_template ? "yes" : "none");
  return lines.text_;
}

std::string TensorsText(const ModelReport& report, bool all_tensors) {
  std::vector<std::vector<std::string>> rows;
  if (all_tensors) {
    rows.push_back({"TENSOR", "SHAPE", "TYPE", "BYTES"});
    for (const ModelSource::TensorInfo& tensor : report.tensors) {
      rows.push_back({tensor.name, Shape(tensor.shape), tensor.type,
                      absl::StrCat(tensor.bytes)});
    }
  } else {
    rows.push_back({"TYPE", "TENSORS", "ELEMENTS", "SIZE"});
    for (const ModelReport::TypeSum& sum : report.types) {
      rows.push_back({sum.type, absl::StrCat(sum.count),
                      absl::StrCat(sum.elements), FormatBytes(sum.bytes)});
    }
  }
  return TextTable(rows);
}

std::string MemoryText(const ModelReport& report) {
  std::string text = absl::StrCat(
      "KV cache: ", FormatBytes(report.kv_token_bytes), " a token, ",
      FormatBytes(report.kv_context_bytes),
      " a full context. Embedding: ", FormatBytes(report.embedding_bytes),
      ", read from the file. Ternary weights are packed as ",
      report.weights_packing, ".\n");
  for (const ModelReport::Plan& plan : report.plans) {
    absl::StrAppend(&text, "\nHead ", plan.head_mode, " (",
                    FormatBytes(plan.head_bytes), "):\n");
    std::vector<std::vector<std::string>> rows = {
        {"STAGE", "LAYERS", "WEIGHTS", "KV/TOKEN", "KV/CONTEXT"}};
    for (size_t i = 0; i < plan.stages.size(); ++i) {
      const ModelReport::Stage& stage = plan.stages[i];
      rows.push_back(
          {absl::StrCat(i), LayersText(stage.range),
           FormatBytes(stage.weight_bytes), FormatBytes(stage.kv_token_bytes),
           FormatBytes(stage.kv_token_bytes *
                       (report.kv_context_bytes / report.kv_token_bytes))});
    }
    absl::StrAppend(&text, TextTable(rows));
  }
  return text;
}

}  // namespace

absl::StatusOr<ModelReport> MakeModelReport(const std::string& path,
                                            int n_stages,
                                            TernaryPacking packing) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelSource> source,
                   ModelSource::Open(path));
  ModelReport report;
  report.name = ModelNameOf(path);
  report.format = std::string(source->format());
  report.file_bytes = source->file_bytes();
  report.fingerprint = source->fingerprint();
  report.config = source->config();
  report.warnings = source->warnings();
  report.tensors = source->tensors();
  SumTypes(&report);
  RETURN_IF_ERROR(LookAtMemory(*source, n_stages, packing, &report));
  LookAtTokenizer(*source, &report);
  LookAtChatTemplate(*source, &report);
  return report;
}

std::string ReportText(const ModelReport& report, bool all_tensors) {
  std::string text =
      absl::StrCat(SummaryText(report), "\n", TensorsText(report, all_tensors),
                   "\n", MemoryText(report));
  if (!report.warnings.empty()) absl::StrAppend(&text, "\n");
  for (const std::string& warning : report.warnings) {
    absl::StrAppend(&text, "warning: ", warning, "\n");
  }
  return text;
}

std::string ReportJson(const ModelReport& report, bool all_tensors) {
  using Json = nlohmann::ordered_json;
  const ModelConfig& c = report.config;
  Json json;
  json["name"] = report.name;
  json["format"] = report.format;
  json["file_bytes"] = report.file_bytes;
  json["fingerprint"] = absl::StrFormat("%016x", report.fingerprint);
  json["config"] = {{"architecture", c.architecture},
                    {"name", c.name},
                    {"n_layers", c.n_layers},
                    {"hidden_size", c.hidden_size},
                    {"ffn_size", c.ffn_size},
                    {"n_heads", c.n_heads},
                    {"n_kv_heads", c.n_kv_heads},
                    {"head_dim", c.head_dim},
                    {"vocab_size", c.vocab_size},
                    {"context_length", c.context_length},
                    {"rope_theta", c.rope_theta},
                    {"rope_kind", RopeName(c.rope_kind)},
                    {"norm_eps", c.norm_eps},
                    {"activation", ActivationName(c.activation)},
                    {"has_sub_norms", c.has_sub_norms},
                    {"tied_head", c.tied_head}};
  json["tokenizer"] = {{"kind", report.tokenizer.kind},
                       {"size", report.tokenizer.size},
                       {"bos_id", report.tokenizer.bos_id},
                       {"adds_bos", report.tokenizer.adds_bos},
                       {"end_ids", report.tokenizer.end_ids}};
  json["has_chat_template"] = report.has_chat_template;
  json["types"] = Json::array();
  for (const ModelReport::TypeSum& sum : report.types) {
    json["types"].push_back({{"type", sum.type},
                             {"tensors", sum.count},
                             {"elements", sum.elements},
                             {"bytes", sum.bytes}});
  }
  if (all_tensors) {
    json["tensors"] = Json::array();
    for (const ModelSource::TensorInfo& tensor : report.tensors) {
      json["tensors"].push_back({{"name", tensor.name},
                                 {"shape", tensor.shape},
                                 {"type", tensor.type},
                                 {"bytes", tensor.bytes}});
    }
  }
  json["embedding_bytes"] = report.embedding_bytes;
  json["kv_token_bytes"] = report.kv_token_bytes;
  json["kv_context_bytes"] = report.kv_context_bytes;
  json["weights_packing"] = report.weights_packing;
  json["plans"] = Json::array();
  for (const ModelReport::Plan& plan : report.plans) {
    Json stages = Json::array();
    for (const ModelReport::Stage& stage : plan.stages) {
      stages.push_back({{"layer_begin", stage.range.layer_begin},
                        {"layer_end", stage.range.layer_end},
                        {"has_embedding", stage.range.has_embedding},
                        {"has_head", stage.range.has_head},
                        {"weight_bytes", stage.weight_bytes},
                        {"kv_token_bytes", stage.kv_token_bytes}});
    }
    json["plans"].push_back({{"head_mode", plan.head_mode},
                             {"head_bytes", plan.head_bytes},
                             {"stages", std::move(stages)}});
  }
  json["warnings"] = report.warnings;
  // Names come from the file and need not be UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tern
