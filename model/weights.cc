#include "model/weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "util/logging.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "tensor data are read by memcpy");

namespace tern {
namespace {

// An I2_S tensor is one stream of blocks, whatever its rows: byte p of a block
// holds the elements p, 32 + p, 64 + p, 96 + p in bits 7:6, 5:4, 3:2, 1:0. One
// float32 scale follows the codes.
constexpr int64_t kBlockElements = 128;
constexpr int64_t kBlockBytes = 32;

// Blocks of TQ1_0 and TQ2_0; a float16 scale is their last two bytes.
constexpr int kTqElements = 256;
constexpr int kTq1Bytes = 54;
constexpr int kTq2Bytes = 66;

// Below it a mean counts as this, so that a matrix of zeros divides nothing.
constexpr float kMeanMin = 1e-5f;

template <typename T>
T Load(const uint8_t* p) {
  T value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

float HalfToFloat(uint16_t half) {
  const int exponent = half >> 10 & 0x1f;
  const int mantissa = half & 0x3ff;
  float magnitude;
  if (exponent == 0x1f) {
    magnitude = mantissa == 0 ? INFINITY : NAN;
  } else if (exponent == 0) {
    magnitude = std::ldexp(static_cast<float>(mantissa), -24);
  } else {
    magnitude = std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
  }
  return (half & 0x8000) != 0 ? -magnitude : magnitude;
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

int TqBlockBytes(TernaryEncoding encoding) {
  return encoding == TernaryEncoding::kTQ1_0 ? kTq1Bytes : kTq2Bytes;
}

// The row of the data that row `row` of the matrix is.
int SourceRow(const TernaryTensor& tensor, int row) {
  const int head_dim = tensor.unpaired_head_dim;
  if (head_dim == 0) return row;
  const int in_head = row % head_dim;
  return row - in_head + in_head % 2 * (head_dim / 2) + in_head / 2;
}

inline uint8_t CodeAt(const uint8_t* stream, int64_t element) {
  const int64_t in_block = element % kBlockElements;
  const uint8_t byte =
      stream[element / kBlockElements * kBlockBytes + in_block % kBlockBytes];
  return byte >> (6 - 2 * (in_block / kBlockBytes)) & 3;
}

// Decodes whole blocks. True when a code 3 is among them. The loop over p has a
// fixed count, no branch, and arrays that do not overlap, so that compilers
// turn it into vectors.
bool DecodeBlocks(const uint8_t* __restrict in, int64_t n_blocks,
                  uint8_t* __restrict out) {
  uint8_t bad[kBlockBytes] = {};
  for (int64_t block = 0; block < n_blocks; ++block) {
    for (int p = 0; p < kBlockBytes; ++p) {
      const uint8_t byte = in[p];
      out[p] = byte >> 6;
      out[p + 32] = byte >> 4 & 3;
      out[p + 64] = byte >> 2 & 3;
      out[p + 96] = byte & 3;
      bad[p] |= byte & byte >> 1;
    }
    in += kBlockBytes;
    out += kBlockElements;
  }
  uint8_t any = 0;
  for (uint8_t lane : bad) any |= lane;
  return (any & 0x55) != 0;
}

bool DecodeSome(const uint8_t* stream, int64_t begin, int64_t end,
                uint8_t* out) {
  bool bad = false;
  for (int64_t i = begin; i < end; ++i) {
    const uint8_t code = CodeAt(stream, i);
    *out++ = code;
    bad |= code == 3;
  }
  return bad;
}

bool DecodeI2S(const TernaryTensor& tensor, int row_begin, int row_end,
               uint8_t* codes) {
  const uint8_t* stream = tensor.data.data();
  const int64_t begin = int64_t{row_begin} * tensor.n_in;
  const int64_t end = int64_t{row_end} * tensor.n_in;
  const int64_t block_begin = std::min(
      end, (begin + kBlockElements - 1) / kBlockElements * kBlockElements);
  const int64_t block_end =
      std::max(block_begin, end / kBlockElements * kBlockElements);

  bool bad = DecodeSome(stream, begin, block_begin, codes);
  bad |= DecodeBlocks(stream + block_begin / kBlockElements * kBlockBytes,
                      (block_end - block_begin) / kBlockElements,
                      codes + (block_begin - begin));
  bad |= DecodeSome(stream, block_end, end, codes + (block_end - begin));
  return bad;
}

// Byte p of each half of a block holds the elements p, 32 + p, 64 + p, 96 + p
// of the half in bits 1:0, 3:2, 5:4, 7:6.
bool DecodeTq2Block(const uint8_t* __restrict in, uint8_t* __restrict out) {
  uint8_t bad = 0;
  for (int half = 0; half < 2; ++half) {
    for (int p = 0; p < 32; ++p) {
      const uint8_t byte = in[32 * half + p];
      for (int k = 0; k < 4; ++k) {
        out[128 * half + 32 * k + p] = byte >> (2 * k) & 3;
      }
      bad |= byte & byte >> 1;
    }
  }
  return (bad & 0x55) != 0;
}

// Digit k of a byte of TQ1_0, most significant first. Always 0, 1 or 2.
inline uint8_t Tq1Digit(uint8_t byte, int k) {
  constexpr uint8_t kPowers[] = {1, 3, 9, 27, 81};
  return static_cast<uint8_t>(byte * kPowers[k]) * 3 >> 8;
}

// 32 bytes of five digits, 16 of five, 4 of four; digit k of byte p of a run of
// `stride` bytes is element k * stride + p.
void DecodeTq1Block(const uint8_t* __restrict in, uint8_t* __restrict out) {
  const int runs[][2] = {{32, 5}, {16, 5}, {4, 4}};
  for (const auto& [stride, n_digits] : runs) {
    for (int k = 0; k < n_digits; ++k) {
      for (int p = 0; p < stride; ++p) *out++ = Tq1Digit(in[p], k);
    }
    in += stride;
  }
}

bool DecodeTqRow(const TernaryTensor& tensor, int row, uint8_t* codes) {
  const int block_bytes = TqBlockBytes(tensor.encoding);
  const int n_blocks = tensor.n_in / kTqElements;
  const uint8_t* block =
      tensor.data.data() + int64_t{row} * n_blocks * block_bytes;
  bool bad = false;
  for (int i = 0; i < n_blocks; ++i) {
    // A scale of 0, of either sign, makes every weight of the block 0.
    const bool is_zero =
        (Load<uint16_t>(block + block_bytes - 2) & 0x7fff) == 0;
    if (is_zero) {
      std::memset(codes, 1, kTqElements);
    } else if (tensor.encoding == TernaryEncoding::kTQ1_0) {
      DecodeTq1Block(block, codes);
    } else {
      bad |= DecodeTq2Block(block, codes);
    }
    block += block_bytes;
    codes += kTqElements;
  }
  return bad;
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

absl::Status MeasureTq(TernaryTensor* tensor) {
  const int block_bytes = TqBlockBytes(tensor->encoding);
  const int64_t n_blocks = int64_t{tensor->n_out} * tensor->n_in / kTqElements;
  const uint8_t* p = tensor->data.data() + block_bytes - 2;
  int64_t first = -1;  // block that has weights
  uint16_t common = 0;
  for (int64_t block = 0; block < n_blocks; ++block, p += block_bytes) {
    const uint16_t scale = Load<uint16_t>(p);
    if ((scale & 0x7fff) == 0) continue;
    if (first < 0) {
      first = block;
      common = scale;
    } else if (scale != common) {
      const auto row = [&](int64_t b) {
        return b * kTqElements / tensor->n_in;
      };
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", tensor->name, " has blocks of different scales (",
          HalfToFloat(common), " in row ", row(first), ", ", HalfToFloat(scale),
          " in row ", row(block),
          "): it is not one ternary matrix; convert the model from its "
          "original weights, to I2_S"));
    }
  }
  const float scale = HalfToFloat(common) * tensor->factor;
  if (!std::isfinite(scale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the scale of tensor ", tensor->name, " is not finite"));
  }
  tensor->scale = scale;
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

absl::Status MeasureTernary(TernaryTensor* tensor) {
  switch (tensor->encoding) {
    case TernaryEncoding::kI2S:
    case TernaryEncoding::kPackedRows:
      return absl::OkStatus();
    case TernaryEncoding::kTQ1_0:
    case TernaryEncoding::kTQ2_0:
      return MeasureTq(tensor);
    default:
      return MeasureMaster(tensor);
  }
}

absl::Status DecodeTernaryRows(const TernaryTensor& tensor, int row_begin,
                               int row_end, uint8_t* codes) {
  DCHECK(0 <= row_begin && row_begin <= row_end && row_end <= tensor.n_out);
  bool bad = false;
  if (tensor.encoding == TernaryEncoding::kI2S) {
    DCHECK(tensor.unpaired_head_dim == 0);
    bad = DecodeI2S(tensor, row_begin, row_end, codes);
  } else {
    std::vector<float> values(IsMaster(tensor.encoding) ? tensor.n_in : 0);
    for (int row = row_begin; row < row_end; ++row) {
      const int source = SourceRow(tensor, row);
      uint8_t* const out = codes + int64_t{row - row_begin} * tensor.n_in;
      if (IsMaster(tensor.encoding)) {
        DecodeMasterRow(tensor, source, values.data(), out);
      } else if (tensor.encoding == TernaryEncoding::kPackedRows) {
        bad |= DecodePackedRow(tensor, source, out);
      } else {
        bad |= DecodeTqRow(tensor, source, out);
      }
    }
  }
  if (!bad) return absl::OkStatus();
  const int64_t n_codes = int64_t{row_end - row_begin} * tensor.n_in;
  const int64_t place = std::find(codes, codes + n_codes, 3) - codes;
  return absl::DataLossError(absl::StrCat(
      "tensor ", tensor.name, " holds a code that is no weight in row ",
      row_begin + place / tensor.n_in, ", column ", place % tensor.n_in,
      ": the file is damaged; copy or download it again"));
}

}  // namespace tern
