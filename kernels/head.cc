#include "kernels/head.h"

#include <cmath>
#include <cstring>

#include "kernels/float16.h"
#include "util/logging.h"

namespace tern {
namespace {

struct DenseTraits {
  int block_columns;
  size_t block_bytes;
};

DenseTraits TraitsOf(DenseType type) {
  switch (type) {
    case DenseType::kF32:
      return {1, 4};
    case DenseType::kF16:
    case DenseType::kBF16:
      return {1, 2};
    case DenseType::kQ8_0:
      return {32, 34};
    case DenseType::kQ6_K:
      return {256, 210};
    case DenseType::kQ4_K:
      return {256, 144};
  }
  CHECK(false) << "no dense type: " << static_cast<int>(type);
  return {};
}

uint16_t Load16(const uint8_t* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof(bits));
  return bits;
}

float LoadF32(const uint8_t* at) {
  float value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

float LoadBF16(const uint8_t* at) {
  const uint32_t bits = static_cast<uint32_t>(Load16(at)) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float LoadF16(const uint8_t* at) { return HalfToFloat(Load16(at)); }

// float16 d, int8 q[32].
void WidenQ8_0(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  for (int i = 0; i < 32; ++i) {
    out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
  }
}

// Low four bits [128], high two bits [64], int8 scales [16], float16 d. A half
// of 128 weights takes 64 bytes of low bits, 32 of high bits and 8 scales; each
// byte of high bits serves four weights, 32 apart.
void WidenQ6_K(const uint8_t* block, float* out) {
  const float d = LoadF16(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;
    const int quarter = i % 128 / 32;
    const int l = i % 32;
    const uint8_t low = block[64 * half + quarter % 2 * 32 + l];
    const uint8_t high = block[128 + 32 * half + l];
    const int q =
        ((low >> (quarter / 2 * 4) & 15) | (high >> (2 * quarter) & 3) << 4) -
        32;
    const int8_t scale = static_cast<int8_t>(block[192 + i / 16]);
    out[i] = d * static_cast<float>(scale) * static_cast<float>(q);
  }
}

// float16 d, float16 dmin, scales and minima of 8 groups in 12 bytes, four bits
// [128]: the 32 bytes 32 g hold group 2 g low and 2 g + 1 high.
void WidenQ4_K(const uint8_t* block, float* out) {
  const float d = LoadF16(block);
  const float dmin = LoadF16(block + 2);
  const uint8_t* sc = block + 4;
  for (int group = 0; group < 8; ++group) {
    int scale = sc[group] & 63;
    int min = sc[group + 4] & 63;
    if (group >= 4) {
      scale = (sc[group + 4] & 15) | sc[group - 4] >> 6 << 4;
      min = sc[group + 4] >> 4 | sc[group] >> 6 << 4;
    }
    const uint8_t* q = block + 16 + group / 2 * 32;
    for (int l = 0; l < 32; ++l) {
      const int quant = q[l] >> (group % 2 * 4) & 15;
      out[32 * group + l] =
          d * static_cast<float>(scale) * static_cast<float>(quant) -
          dmin * static_cast<float>(min);
    }
  }
}

}  // namespace

absl::string_view HeadModeName(HeadMode mode) {
  return mode == HeadMode::kStored ? "stored" : "int8";
}

bool ParseHeadMode(absl::string_view name, HeadMode* mode) {
  for (HeadMode candidate : {HeadMode::kStored, HeadMode::kInt8}) {
    if (HeadModeName(candidate) == name) {
      *mode = candidate;
      return true;
    }
  }
  return false;
}

int DenseBlockColumns(DenseType type) { return TraitsOf(type).block_columns; }

size_t DenseBlockBytes(DenseType type) { return TraitsOf(type).block_bytes; }

size_t DenseRowBytes(DenseType type, int n_columns) {
  const DenseTraits traits = TraitsOf(type);
  DCHECK(n_columns % traits.block_columns == 0);
  return n_columns / traits.block_columns * traits.block_bytes;
}

void DenseRow(const DenseView& w, int row, float* out) {
  DenseColumns(w, row, 0, w.n_columns, out);
}

void DenseColumns(const DenseView& w, int row, int column_begin, int column_end,
                  float* out) {
  const DenseTraits traits = TraitsOf(w.type);
  DCHECK(row >= 0 && row < w.n_rows);
  DCHECK(column_begin >= 0 && column_end <= w.n_columns);
  DCHECK(column_begin % traits.block_columns == 0);
  DCHECK(column_end % traits.block_columns == 0);
  const uint8_t* at = static_cast<const uint8_t*>(w.data) +
                      row * DenseRowBytes(w.type, w.n_columns) +
                      column_begin / traits.block_columns * traits.block_bytes;
  for (int column = column_begin; column < column_end;
       column += traits.block_columns) {
    switch (w.type) {
      case DenseType::kF32:
        *out = LoadF32(at);
        break;
      case DenseType::kF16:
        *out = LoadF16(at);
        break;
      case DenseType::kBF16:
        *out = LoadBF16(at);
        break;
      case DenseType::kQ8_0:
        WidenQ8_0(at, out);
        break;
      case DenseType::kQ6_K:
        WidenQ6_K(at, out);
        break;
      case DenseType::kQ4_K:
        WidenQ4_K(at, out);
        break;
    }
    at += traits.block_bytes;
    out += traits.block_columns;
  }
}

float PlaceInt8Row(const int8_t* q, int n_columns, int r, uint8_t* upper,
                   uint8_t* lower) {
  DCHECK(n_columns % 8 == 0);
  DCHECK(r >= 0 && r < kHeadPanelRows);
  uint8_t* high = upper + 4 * r;
  uint8_t* low = lower + r / kHeadGroupRows * HeadGroupBytes(n_columns) +
                 r % kHeadGroupRows * 4;
  int64_t squares = 0;  // of 2 l - 15
  for (int column = 0; column < n_columns; column += 8) {
    // Four columns at a time; q + 128 flips the sign bit of a byte.
    uint32_t a;
    uint32_t b;
    std::memcpy(&a, q + column, 4);
    std::memcpy(&b, q + column + 4, 4);
    a ^= 0x80808080u;
    b ^= 0x80808080u;
    const uint32_t high4 = (a >> 4 & 0x0f0f0f0fu) | (b & 0xf0f0f0f0u);
    const uint32_t low4 = (a & 0x0f0f0f0fu) | (b << 4 & 0xf0f0f0f0u);
    std::memcpy(high, &high4, 4);
    std::memcpy(low, &low4, 4);
    high += 4 * kHeadPanelRows;
    low += 4 * kHeadGroupRows;
    int32_t sum = 0;
    for (int j = 0; j < 8; ++j) {
      const int centred = 2 * (q[column + j] & 15) - 15;
      sum += centred * centred;
    }
    squares += sum;
  }
  return 0.5f * NormAbove(squares);
}

float NormAbove(int64_t squares) {
  return static_cast<float>(std::sqrt(static_cast<double>(squares)) *
                            (1 + 0x1p-20));
}

}  // namespace tern
