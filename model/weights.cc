#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/float16.h"
#include "model/ternary_codec.h"
#include "util/logging.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "tensor data are read by memcpy");

namespace tern {
namespace {

// Below it a mean counts as this, so that a matrix of zeros divides nothing.
constexpr float kMeanMin = 1e-5f;

template <typename T>
T Load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

inline float BrainToFloat(uint16_t brain) {
  const uint32_t bits = static_cast<uint32_t>(brain) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Widens `n` elements of kF32, kF16 or kBF16.
void Widen(DenseEncoding encoding, const uint8_t* in, int n, float* out) {
  switch (encoding) {
    case DenseEncoding::kF16:
      for (int i = 0; i < n; ++i)
        out[i] = HalfToFloat(Load<uint16_t>(in + 2 * i));
      return;
    case DenseEncoding::kBF16:
      for (int i = 0; i < n; ++i) {
        out[i] = BrainToFloat(Load<uint16_t>(in + 2 * i));
      }
      return;
    default:
      DCHECK(encoding == DenseEncoding::kF32);
      std::memcpy(out, in, n * sizeof(float));
  }
}

bool IsMaster(TernaryEncoding encoding) {
  return encoding == TernaryEncoding::kF32 ||
         encoding == TernaryEncoding::kF16 ||
         encoding == TernaryEncoding::kBF16;
}

DenseEncoding MasterEncoding(TernaryEncoding encoding) {
  return encoding == TernaryEncoding::kF32   ? DenseEncoding::kF32
         : encoding == TernaryEncoding::kF16 ? DenseEncoding::kF16
                                             : DenseEncoding::kBF16;
}

// For encodings of GGUF files.
TernaryFormat FormatOf(TernaryEncoding encoding) {
  return encoding == TernaryEncoding::kI2S     ? TernaryFormat::kI2S
         : encoding == TernaryEncoding::kTQ1_0 ? TernaryFormat::kTQ1_0
                                               : TernaryFormat::kTQ2_0;
}

// The row of the data that row `row` of the matrix is.
int SourceRow(const TernaryTensor& tensor, int row) {
  const int head_dim = tensor.unpaired_head_dim;
  if (head_dim == 0) return row;
  const int in_head = row % head_dim;
  return row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

// A byte holds the codes of one column of four rows, n_out / 4 apart, the first
// in bits 1:0.
bool DecodePackedRow(const TernaryTensor& tensor, int row,
                     uint8_t* __restrict codes) {
  const int n_packed = tensor.n_out / 4;
  const uint8_t* __restrict in =
      tensor.data.data() + int64_t{row % n_packed} * tensor.n_in;
  const int shift = 2 * (row / n_packed);
  uint8_t bad = 0;
  for (int i = 0; i < tensor.n_in; ++i) {
    const uint8_t code = in[i] >> shift & 3;
    codes[i] = code;
    bad |= code & code >> 1;
  }
  return bad != 0;
}

// Rounding half to even and clamping to [-1, 1] come to two comparisons.
void DecodeMasterRow(const TernaryTensor& tensor, int row, float* values,
                     uint8_t* codes) {
  const DenseEncoding encoding = MasterEncoding(tensor.encoding);
  const uint8_t* in =
      tensor.data.data() + row * DenseBytes(encoding, tensor.n_in);
  Widen(encoding, in, tensor.n_in, values);
  for (int i = 0; i < tensor.n_in; ++i) {
    const float value = values[i] * tensor.quantizer;
    codes[i] = 1 + (value > 0.5f) - (value < -0.5f);
  }
}

std::string Place(const TernaryTensor& tensor, int64_t weight) {
  return absl::StrCat("row ", weight / tensor.n_in, ", column ",
                      weight % tensor.n_in);
}

absl::Status CodeError(const TernaryTensor& tensor, int64_t weight) {
  return absl::DataLossError(
      absl::StrCat("tensor ", tensor.name,
                   " holds a code that is no weight in ", Place(tensor, weight),
                   ": the file is damaged; copy or download it again"));
}

absl::Status DecodeStream(const TernaryTensor& tensor, int row_begin,
                          int row_end, uint8_t* codes) {
  const TernaryResult result = DecodeTernary(
      FormatOf(tensor.encoding), tensor.data.data(), tensor.block_scale,
      int64_t{row_begin} * tensor.n_in, int64_t{row_end} * tensor.n_in, codes);
  switch (result.fault) {
    case TernaryFault::kNone:
      return absl::OkStatus();
    case TernaryFault::kCode:
      return CodeError(tensor, result.weight);
    case TernaryFault::kScale:
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", tensor.name,
          " has blocks of different scales: ", tensor.block_scale,
          " in the first, another in the one of ", Place(tensor, result.weight),
          "; it is not one ternary matrix: convert the model again from its "
          "original weights, to I2_S"));
  }
  return absl::OkStatus();
}

absl::Status MeasureMaster(TernaryTensor* tensor) {
  const DenseEncoding encoding = MasterEncoding(tensor->encoding);
  const int64_t row_bytes = DenseBytes(encoding, tensor->n_in);
  std::vector<float> values(tensor->n_in);
  double sum = 0;
  for (int row = 0; row < tensor->n_out; ++row) {
    Widen(encoding, tensor->data.data() + row * row_bytes, tensor->n_in,
          values.data());
    double row_sum = 0;
    for (float value : values) row_sum += std::fabs(value);
    if (!std::isfinite(row_sum)) {
      return absl::DataLossError(
          absl::StrCat("tensor ", tensor->name, " is not finite in row ", row,
                       ": the file is damaged; copy or download it again"));
    }
    sum += row_sum;
  }
  const float mean = static_cast<float>(
      sum / (static_cast<double>(tensor->n_out) * tensor->n_in));
  tensor->quantizer = 1.0f / std::max(mean, kMeanMin);
  tensor->scale = 1.0f / tensor->quantizer;
  if (!std::isfinite(tensor->scale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the weights of tensor ", tensor->name, " are too large"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view DenseEncodingName(DenseEncoding encoding) {
  switch (encoding) {
    case DenseEncoding::kF32:
      return "F32";
    case DenseEncoding::kF16:
      return "F16";
    case DenseEncoding::kBF16:
      return "BF16";
    case DenseEncoding::kQ8_0:
      return "Q8_0";
    case DenseEncoding::kQ6K:
      return "Q6_K";
    case DenseEncoding::kQ4K:
      return "Q4_K";
  }
  return "";
}

int64_t DenseBytes(DenseEncoding encoding, int64_t n) {
  switch (encoding) {
    case DenseEncoding::kF32:
      return 4 * n;
    case DenseEncoding::kF16:
    case DenseEncoding::kBF16:
      return 2 * n;
    case DenseEncoding::kQ8_0:
      return n / 32 * 34;
    case DenseEncoding::kQ6K:
      return n / 256 * 210;
    case DenseEncoding::kQ4K:
      return n / 256 * 144;
  }
  return 0;
}

absl::StatusOr<std::vector<float>> ReadNorm(absl::string_view name,
                                            DenseEncoding encoding,
                                            absl::Span<const uint8_t> data,
                                            int n) {
  if (encoding != DenseEncoding::kF32 && encoding != DenseEncoding::kF16 &&
      encoding != DenseEncoding::kBF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has type ", DenseEncodingName(encoding),
                     "; Tern reads norms as F32, F16 or BF16"));
  }
  DCHECK(static_cast<int64_t>(data.size()) == DenseBytes(encoding, n));
  std::vector<float> values(n);
  Widen(encoding, data.data(), n, values.data());
  for (int i = 0; i < n; ++i) {
    if (!std::isfinite(values[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", name, " is not finite at element ", i));
    }
  }
  return values;
}

bool IsTernaryStream(TernaryEncoding encoding) {
  return encoding == TernaryEncoding::kI2S ||
         encoding == TernaryEncoding::kTQ1_0 ||
         encoding == TernaryEncoding::kTQ2_0;
}

absl::Status ReadStreamScale(float factor, TernaryTensor* tensor) {
  tensor->block_scale =
      TernaryScale(FormatOf(tensor->encoding), tensor->data.data(),
                   int64_t{tensor->n_out} * tensor->n_in);
  tensor->scale = tensor->block_scale * factor;
  if (!std::isfinite(tensor->scale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the scale of tensor ", tensor->name, " is not finite"));
  }
  return absl::OkStatus();
}

absl::Status MeasureTernary(TernaryTensor* tensor) {
  return IsMaster(tensor->encoding) ? MeasureMaster(tensor) : absl::OkStatus();
}

absl::Status DecodeTernaryRows(const TernaryTensor& tensor, int row_begin,
                               int row_end, uint8_t* codes) {
  DCHECK(0 <= row_begin && row_begin <= row_end && row_end <= tensor.n_out);
  if (IsTernaryStream(tensor.encoding)) {
    DCHECK(tensor.unpaired_head_dim == 0);
    return DecodeStream(tensor, row_begin, row_end, codes);
  }
  const bool is_master = IsMaster(tensor.encoding);
  std::vector<float> values(is_master ? tensor.n_in : 0);
  for (int row = row_begin; row < row_end; ++row) {
    const int source = SourceRow(tensor, row);
    uint8_t* const out = codes + int64_t{row - row_begin} * tensor.n_in;
    if (is_master) {
      DecodeMasterRow(tensor, source, values.data(), out);
    } else if (DecodePackedRow(tensor, source, out)) {
      const int64_t column = std::find(out, out + tensor.n_in, 3) - out;
      return CodeError(tensor, int64_t{source} * tensor.n_in + column);
    }
  }
  return absl::OkStatus();
}

}  // namespace tern
