#include "tools/convert_model.h"

#include <sys/stat.h>

#include <algorithm>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "model/gguf_reader.h"
#include "model/gguf_types.h"
#include "model/gguf_writer.h"
#include "model/model_source.h"
#include "tools/chunked_write.h"
#include "tools/convert_safetensors.h"
#include "tools/gguf_metadata.h"
#include "tools/type_fit.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr char kFileTypeKey[] = "general.file_type";

absl::optional<TernaryFormat> FormatOf(const GgufTensor& tensor) {
  switch (static_cast<GgufType>(tensor.type)) {
    case GgufType::kI2S:
      return TernaryFormat::kI2S;
    case GgufType::kTQ1_0:
      return TernaryFormat::kTQ1_0;
    case GgufType::kTQ2_0:
      return TernaryFormat::kTQ2_0;
    default:
      return absl::nullopt;
  }
}

// One tensor of the output.
struct Plan {
  const GgufTensor* tensor;
  bool converts;
  TernaryFormat from;
  float scale;
};

class Converter {
 public:
  Converter(const GgufReader& file, const ConvertOptions& options)
      : file_(file),
        options_(options),
        fit_(options.type, options.allow_rounding) {}

  absl::Status PlanTensors() {
    for (const GgufTensor& tensor : file_.tensors()) {
      RETURN_IF_ERROR(PlanTensor(tensor));
    }
    result_.rounded = fit_.rounded();
    result_.rounding_max = fit_.rounding_max();
    return fit_.Finish();
  }

  absl::StatusOr<GgufHeader> MakeHeader() const {
    GgufHeader header;
    for (const std::string& key : file_.keys()) {
      if (absl::StartsWith(key, "split.")) continue;
      ASSIGN_OR_RETURN(const GgufReader::RawValue value, file_.GetRaw(key));
      header.SetRaw(key, value.type, value.bytes);
    }
    if (result_.converted > 0 && file_.HasKey(kFileTypeKey)) {
      header.SetUint32(kFileTypeKey, GgufFileTypeOf(options_.type));
    }
    for (const Plan& plan : plans_) {
      const GgufTensor& tensor = *plan.tensor;
      RETURN_IF_ERROR(header.AddTensor(
          tensor.name, tensor.dims,
          plan.converts ? GgufTypeOf(options_.type) : tensor.type,
          plan.converts ? TernaryBytes(options_.type, Weights(tensor))
                        : static_cast<int64_t>(tensor.data.size())));
    }
    return header;
  }

  absl::StatusOr<ConvertResult> Write(const std::string& path, ThreadPool* pool,
                                      ProgressFn progress) {
    ASSIGN_OR_RETURN(const GgufHeader header, MakeHeader());
    ASSIGN_OR_RETURN(const std::unique_ptr<GgufWriter> writer,
                     GgufWriter::Create(path, header, options_.overwrite));
    for (const Plan& plan : plans_) {
      RETURN_IF_ERROR(
          plan.converts
              ? ConvertTensor(plan, writer.get(), pool, progress)
              : CopyChunks(plan.tensor->data, writer.get(), pool, progress));
      file_.Release(plan.tensor->data);
    }
    RETURN_IF_ERROR(writer->Finish(/*sync=*/true));
    result_.file_bytes = writer->file_bytes();
    return result_;
  }

 private:
  static int64_t Weights(const GgufTensor& tensor) {
    return tensor.rows() * tensor.columns();
  }

  absl::Status PlanTensor(const GgufTensor& tensor) {
    const auto from = FormatOf(tensor);
    Plan plan = {&tensor, from.has_value() && *from != options_.type,
                 from.value_or(TernaryFormat::kI2S), 0};
    if (plan.converts) {
      ++result_.converted;
      plan.scale = TernaryScale(plan.from, tensor.data.data(), Weights(tensor));
      RETURN_IF_ERROR(
          fit_.Check(tensor.name, tensor.rows(), tensor.columns(), plan.scale));
    }
    plans_.push_back(plan);
    return absl::OkStatus();
  }

  absl::Status ConvertTensor(const Plan& plan, GgufWriter* writer,
                             ThreadPool* pool, ProgressFn progress) const {
    const GgufTensor& tensor = *plan.tensor;
    const int64_t n = Weights(tensor);
    const TernaryFormat to = options_.type;
    const auto make = [&](int64_t chunk, std::vector<uint8_t>* out) {
      const int64_t begin = chunk * kTernaryChunkWeights;
      const int64_t end = std::min(n, begin + kTernaryChunkWeights);
      std::vector<uint8_t> codes(end - begin);
      const TernaryResult result = DecodeTernary(
          plan.from, tensor.data.data(), plan.scale, begin, end, codes.data());
      if (result.fault != TernaryFault::kNone) {
        return Fault(tensor, result);
      }
      out->resize(TernaryBytes(to, end - begin));
      EncodeTernary(to, codes.data(), end - begin, plan.scale, out->data());
      // A stream has its scale behind the last chunk only.
      if (to == TernaryFormat::kI2S && end < n) {
        out->resize(out->size() - TernaryBytes(to, 0));
      }
      return absl::OkStatus();
    };
    return WriteChunks(writer, pool,
                       (n + kTernaryChunkWeights - 1) / kTernaryChunkWeights,
                       make, progress);
  }

  static absl::Status Fault(const GgufTensor& tensor,
                            const TernaryResult& result) {
    if (result.fault == TernaryFault::kScale) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", tensor.name, " has blocks of different scales (weight ",
          result.weight, "): it is no ternary matrix of one scale"));
    }
    return absl::DataLossError(absl::StrCat(
        "tensor ", tensor.name, " holds a code that is no weight (weight ",
        result.weight, "): the file is damaged"));
  }

  const GgufReader& file_;
  const ConvertOptions options_;
  std::vector<Plan> plans_;
  TypeFit fit_;
  ConvertResult result_;
};

}  // namespace

absl::StatusOr<ConvertResult> ConvertModel(const std::string& in,
                                           const std::string& out,
                                           const ConvertOptions& options,
                                           ThreadPool* pool,
                                           ProgressFn progress) {
  struct stat info;
  if (stat(in.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return ConvertSafetensors(in, out, options, pool, progress);
  }
  // Only what is a model is worth converting: this checks names and shapes.
  RETURN_IF_ERROR(ModelSource::Open(in).status());
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufReader> file,
                   GgufReader::Open(in));
  Converter converter(*file, options);
  RETURN_IF_ERROR(converter.PlanTensors());
  return converter.Write(out, pool, progress);
}

}  // namespace tern
