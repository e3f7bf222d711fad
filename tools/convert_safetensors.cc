#include "tools/convert_safetensors.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "model/gguf_writer.h"
#include "model/model_config.h"
#include "model/model_source.h"
#include "model/ternary_codec.h"
#include "model/weights.h"
#include "tools/chunked_write.h"
#include "tools/gguf_metadata.h"
#include "tools/gguf_tokenizer.h"
#include "tools/type_fit.h"
#include "util/status_macros.h"

namespace tern {
namespace {

class Converter {
 public:
  Converter(const ModelSource& source, const ConvertOptions& options,
            ThreadPool* pool, ProgressFn progress)
      : source_(source),
        options_(options),
        pool_(pool),
        progress_(progress),
        fit_(options.type, options.allow_rounding) {}

  absl::StatusOr<ConvertResult> Convert(const std::string& name,
                                        const std::string& out) {
    RETURN_IF_ERROR(SetMetadata(name));
    RETURN_IF_ERROR(PlanTensors());
    RETURN_IF_ERROR(fit_.Finish());
    ASSIGN_OR_RETURN(writer_,
                     GgufWriter::Create(out, header_, options_.overwrite));
    for (const auto& write : tensors_) RETURN_IF_ERROR(write());
    RETURN_IF_ERROR(writer_->Finish(/*sync=*/true));
    ConvertResult result;
    result.file_bytes = writer_->file_bytes();
    result.converted = n_matrices_;
    result.rounded = fit_.rounded();
    result.rounding_max = fit_.rounding_max();
    return result;
  }

 private:
  absl::Status SetMetadata(const std::string& name) {
    ModelConfig config = source_.config();
    // A config.json can ask for an activation, GGUF has one per architecture.
    const Activation activation = config.architecture == "bitnet-b1.58"
                                      ? Activation::kRelu2
                                      : Activation::kSilu;
    if (config.activation != activation) {
      return absl::UnimplementedError(absl::StrCat(
          "config.json: hidden_act is ",
          config.activation == Activation::kSilu ? "silu" : "relu2",
          "; a GGUF file of architecture ", config.architecture,
          " stands for the other one and cannot say so; serve the directory "
          "as it is"));
    }
    if (config.name.empty()) config.name = name;
    SetModelKeys(config, options_.type, &header_);
    ASSIGN_OR_RETURN(const ModelSource::TokenizerFiles files,
                     source_.ReadTokenizerFiles());
    RETURN_IF_ERROR(SetTokenizerKeys(files, config.vocab_size, &header_));
    const absl::optional<std::string> chat_template = source_.chat_template();
    if (chat_template.has_value()) {
      header_.SetString("tokenizer.chat_template", *chat_template);
    }
    return absl::OkStatus();
  }

  absl::Status PlanTensors() {
    const ModelConfig& config = source_.config();
    ASSIGN_OR_RETURN(const DenseTensor embedding, source_.FindEmbedding());
    RETURN_IF_ERROR(PlanDense("token_embd.weight", embedding));
    for (int layer = 0; layer < config.n_layers; ++layer) {
      RETURN_IF_ERROR(PlanLayer(layer));
    }
    ASSIGN_OR_RETURN(std::vector<float> norm, source_.FindOutputNorm());
    RETURN_IF_ERROR(PlanNorm("output_norm.weight", std::move(norm)));
    if (config.tied_head) return absl::OkStatus();
    ASSIGN_OR_RETURN(const DenseTensor head, source_.FindHead());
    return PlanDense("output.weight", head);
  }

  absl::Status PlanLayer(int layer) {
    ASSIGN_OR_RETURN(LayerTensors t, source_.FindLayer(layer));
    TernaryTensor* const matrices[] = {&t.q,    &t.k,  &t.v,   &t.o,
                                       &t.gate, &t.up, &t.down};
    constexpr int kMatrices = 7;
    // Reads all of them when they are masters: scales come of the weights.
    absl::Status statuses[kMatrices];
    pool_->ParallelForEach(kMatrices, [&](int64_t i, int) {
      statuses[i] = MeasureTernary(matrices[i]);
      source_.Release(matrices[i]->data);
    });
    for (const absl::Status& status : statuses) RETURN_IF_ERROR(status);
    if (!progress_(0, source_.file_bytes())) {
      return absl::CancelledError("interrupted; nothing was written");
    }

    const bool has_sub_norms = source_.config().has_sub_norms;
    const std::string b = absl::StrCat("blk.", layer, ".");
    RETURN_IF_ERROR(PlanNorm(b + "attn_norm.weight", std::move(t.attn_norm)));
    RETURN_IF_ERROR(PlanTernary(b + "attn_q.weight", t.q));
    RETURN_IF_ERROR(PlanTernary(b + "attn_k.weight", t.k));
    RETURN_IF_ERROR(PlanTernary(b + "attn_v.weight", t.v));
    if (has_sub_norms) {
      RETURN_IF_ERROR(
          PlanNorm(b + "attn_sub_norm.weight", std::move(t.attn_sub_norm)));
    }
    RETURN_IF_ERROR(PlanTernary(b + "attn_output.weight", t.o));
    RETURN_IF_ERROR(PlanNorm(b + "ffn_norm.weight", std::move(t.ffn_norm)));
    RETURN_IF_ERROR(PlanTernary(b + "ffn_gate.weight", t.gate));
    RETURN_IF_ERROR(PlanTernary(b + "ffn_up.weight", t.up));
    if (has_sub_norms) {
      RETURN_IF_ERROR(
          PlanNorm(b + "ffn_sub_norm.weight", std::move(t.ffn_sub_norm)));
    }
    return PlanTernary(b + "ffn_down.weight", t.down);
  }

  absl::Status PlanNorm(const std::string& name, std::vector<float> values) {
    const int64_t n = values.size();
    RETURN_IF_ERROR(header_.AddTensor(name, {n},
                                      GgufTypeOf(DenseEncoding::kF32),
                                      DenseBytes(DenseEncoding::kF32, n)));
    tensors_.push_back([this, values = std::move(values)] {
      return writer_->Append({reinterpret_cast<const uint8_t*>(values.data()),
                              values.size() * sizeof(float)});
    });
    return absl::OkStatus();
  }

  absl::Status PlanTernary(const std::string& name,
                           const TernaryTensor& tensor) {
    ++n_matrices_;
    RETURN_IF_ERROR(
        fit_.Check(tensor.name, tensor.n_out, tensor.n_in, tensor.scale));
    const int64_t n = static_cast<int64_t>(tensor.n_out) * tensor.n_in;
    RETURN_IF_ERROR(header_.AddTensor(name, {tensor.n_in, tensor.n_out},
                                      GgufTypeOf(options_.type),
                                      TernaryBytes(options_.type, n)));
    tensors_.push_back([this, tensor] { return WriteTernary(tensor); });
    return absl::OkStatus();
  }

  absl::Status WriteTernary(const TernaryTensor& tensor) {
    // Rows are multiples of 16 weights, so that those of a chunk are whole
    // blocks of any type.
    constexpr int kTogether = 8;
    const int rows = static_cast<int>(
        std::max<int64_t>(kTernaryChunkWeights / tensor.n_in / kTogether, 1) *
        kTogether);
    const auto make = [&](int64_t chunk, std::vector<uint8_t>* out) {
      const int begin = static_cast<int>(chunk * rows);
      const int end = std::min(begin + rows, tensor.n_out);
      const int64_t n = static_cast<int64_t>(end - begin) * tensor.n_in;
      std::vector<uint8_t> codes(n);
      RETURN_IF_ERROR(DecodeTernaryRows(tensor, begin, end, codes.data()));
      out->resize(TernaryBytes(options_.type, n));
      EncodeTernary(options_.type, codes.data(), n, tensor.scale, out->data());
      // A stream has its scale behind the last chunk only.
      if (options_.type == TernaryFormat::kI2S && end < tensor.n_out) {
        out->resize(out->size() - TernaryBytes(options_.type, 0));
      }
      return absl::OkStatus();
    };
    RETURN_IF_ERROR(WriteChunks(writer_.get(), pool_,
                                (tensor.n_out + rows - 1) / rows, make,
                                progress_));
    source_.Release(tensor.data);
    return absl::OkStatus();
  }

  absl::Status PlanDense(const std::string& name, const DenseTensor& tensor) {
    RETURN_IF_ERROR(header_.AddTensor(
        name, {tensor.n_columns, tensor.n_rows}, GgufTypeOf(tensor.encoding),
        static_cast<int64_t>(tensor.data.size())));
    tensors_.push_back([this, data = tensor.data] {
      RETURN_IF_ERROR(CopyChunks(data, writer_.get(), pool_, progress_));
      source_.Release(data);
      return absl::OkStatus();
    });
    return absl::OkStatus();
  }

  const ModelSource& source_;
  const ConvertOptions options_;
  ThreadPool* const pool_;
  const ProgressFn progress_;
  TypeFit fit_;
  int n_matrices_ = 0;
  GgufHeader header_;
  // What writes each tensor, in the order of the header.
  std::vector<std::function<absl::Status()>> tensors_;
  std::unique_ptr<GgufWriter> writer_;
};

}  // namespace

absl::StatusOr<ConvertResult> ConvertSafetensors(const std::string& directory,
                                                 const std::string& out,
                                                 const ConvertOptions& options,
                                                 ThreadPool* pool,
                                                 ProgressFn progress) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelSource> source,
                   ModelSource::Open(directory));
  return Converter(*source, options, pool, progress)
      .Convert(ModelNameOf(directory), out);
}

}  // namespace tern
