#include "model/ternary_codec.h"

#include <algorithm>
#include <cstring>

#include "kernels/float16.h"
#include "util/logging.h"

namespace tern {
namespace {

// The block decoders are loops of a fixed count, without a branch, over arrays
// that do not overlap, so that compilers turn them into vectors.

// Where some byte of a run has the two bits 3.
template <int kBytes>
bool AnyThree(const uint8_t* in) {
  uint8_t any = 0;
  for (int p = 0; p < kBytes; ++p) any |= in[p] & in[p] >> 1;
  return (any & 0x55) != 0;
}

struct I2S {
  static constexpr int kWeights = 128;
  static constexpr int kBytes = 32;
  static constexpr bool kBlocksHaveScales = false;

  // False when some weight has no code.
  static bool Decode(const uint8_t* __restrict in, uint8_t* __restrict out) {
    for (int p = 0; p < 32; ++p) {
      out[p] = in[p] >> 6;
      out[p + 32] = in[p] >> 4 & 3;
      out[p + 64] = in[p] >> 2 & 3;
      out[p + 96] = in[p] & 3;
    }
    return !AnyThree<32>(in);
  }

  // Whether weight i has a code.
  static bool IsCode(const uint8_t* in, int i) {
    return (in[i % 32] >> (6 - i / 32 * 2) & 3) != 3;
  }

  static void Encode(const uint8_t* codes, uint8_t* out) {
    for (int p = 0; p < 32; ++p) {
      out[p] = codes[p] << 6 | codes[p + 32] << 4 | codes[p + 64] << 2 |
               codes[p + 96];
    }
  }
};

struct TQ2_0 {
  static constexpr int kWeights = 256;
  static constexpr int kBytes = 66;
  static constexpr bool kBlocksHaveScales = true;

  static bool Decode(const uint8_t* __restrict in, uint8_t* __restrict out) {
    for (int half = 0; half < 2; ++half) {
      for (int p = 0; p < 32; ++p) {
        const uint8_t byte = in[32 * half + p];
        out[128 * half + p] = byte & 3;
        out[128 * half + p + 32] = byte >> 2 & 3;
        out[128 * half + p + 64] = byte >> 4 & 3;
        out[128 * half + p + 96] = byte >> 6;
      }
    }
    return !AnyThree<64>(in);
  }

  static bool IsCode(const uint8_t* in, int i) {
    return (in[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) != 3;
  }

  static void Encode(const uint8_t* codes, uint8_t* out) {
    for (int half = 0; half < 2; ++half) {
      for (int p = 0; p < 32; ++p) {
        const uint8_t* c = codes + 128 * half + p;
        out[32 * half + p] = c[0] | c[32] << 2 | c[64] << 4 | c[96] << 6;
      }
    }
  }
};

struct TQ1_0 {
  static constexpr int kWeights = 256;
  static constexpr int kBytes = 54;
  static constexpr bool kBlocksHaveScales = true;

  static bool Decode(const uint8_t* __restrict in, uint8_t* __restrict out) {
    // No short cut: all three runs are decoded before a fault is told.
    const bool a = DecodeRun<32, 5>(in, out);
    const bool b = DecodeRun<16, 5>(in + 32, out + 160);
    const bool c = DecodeRun<4, 4>(in + 48, out + 240);
    return a & b & c;
  }

  static bool IsCode(const uint8_t* in, int i) {
    if (i < 160) return IsFive(in[i % 32]);
    if (i < 240) return IsFive(in[32 + i % 16]);
    const uint8_t byte = in[48 + i % 4];
    return IsFive(byte) && Digit(byte * 81) == 0;
  }

  static void Encode(const uint8_t* codes, uint8_t* out) {
    EncodeRun<32, 5>(codes, out);
    EncodeRun<16, 5>(codes + 160, out + 32);
    EncodeRun<4, 4>(codes + 240, out + 48);
  }

 private:
  // A byte is a fraction of 256 in base 3: its first digit is the integer part
  // of 3 / 256 of it, and what is left, times 3, has the next one first.
  static uint8_t Digit(uint8_t rest) { return (rest > 85) + (rest > 170); }

  // Bytes are rounded up from value * 256 / 243, so that less than 243 / 256 of
  // the last digit's unit is left of those that some value gives.
  static bool IsFive(uint8_t byte) {
    return static_cast<uint8_t>(byte * 243) < 243;
  }

  // Digit k of byte p is out[k * kRun + p].
  template <int kRun, int kDigits>
  static bool DecodeRun(const uint8_t* __restrict in, uint8_t* __restrict out) {
    uint8_t rest[kRun];
    std::memcpy(rest, in, kRun);
    for (int k = 0; k < kDigits; ++k) {
      for (int p = 0; p < kRun; ++p) {
        out[k * kRun + p] = Digit(rest[p]);
        rest[p] *= 3;
      }
    }
    uint8_t bad = 0;
    if (kDigits == 4) {
      for (int p = 0; p < kRun; ++p) {
        bad |= Digit(rest[p]);
        rest[p] *= 3;
      }
    }
    for (int p = 0; p < kRun; ++p) bad |= rest[p] >= 243;
    return bad == 0;
  }

  template <int kRun, int kDigits>
  static void EncodeRun(const uint8_t* codes, uint8_t* out) {
    for (int p = 0; p < kRun; ++p) {
      int value = 0;
      for (int k = 0; k < 5; ++k) {
        value = 3 * value + (k < kDigits ? codes[k * kRun + p] : 0);
      }
      out[p] = static_cast<uint8_t>((value * 256 + 242) / 243);
    }
  }
};

// Calls `visit` with the format's functions.
template <typename Visitor>
auto Visit(TernaryFormat format, Visitor visit) {
  switch (format) {
    case TernaryFormat::kI2S:
      return visit(I2S());
    case TernaryFormat::kTQ1_0:
      return visit(TQ1_0());
    case TernaryFormat::kTQ2_0:
      break;
  }
  return visit(TQ2_0());
}

uint16_t LastHalf(const uint8_t* block, int block_bytes) {
  uint16_t half;
  std::memcpy(&half, block + block_bytes - sizeof(half), sizeof(half));
  return half;
}

bool IsZero(uint16_t half) { return (half & 0x7fff) == 0; }

// What a block is, apart from its weights.
enum class BlockKind { kSound, kZeros, kOtherScale };

template <typename Format>
BlockKind KindOf(const uint8_t* block, float scale) {
  if (!Format::kBlocksHaveScales) return BlockKind::kSound;
  const uint16_t half = LastHalf(block, Format::kBytes);
  if (IsZero(half)) return BlockKind::kZeros;
  return HalfToFloat(half) == scale ? BlockKind::kSound
                                    : BlockKind::kOtherScale;
}

template <typename Format>
TernaryResult Decode(const uint8_t* data, float scale, int64_t begin,
                     int64_t end, uint8_t* codes) {
  constexpr int kWeights = Format::kWeights;
  for (int64_t i = begin; i < end;) {
    const uint8_t* block = data + i / kWeights * Format::kBytes;
    const int first = static_cast<int>(i % kWeights);
    const int count =
        static_cast<int>(std::min<int64_t>(kWeights - first, end - i));
    uint8_t* out = codes + (i - begin);
    const BlockKind kind = KindOf<Format>(block, scale);
    if (kind == BlockKind::kOtherScale) return {TernaryFault::kScale, i};
    if (kind == BlockKind::kZeros) {
      std::memset(out, 1, count);
    } else {
      bool sound;
      if (count == kWeights) {
        sound = Format::Decode(block, out);
      } else {
        uint8_t whole[kWeights];
        sound = Format::Decode(block, whole);
        std::memcpy(out, whole + first, count);
      }
      for (int j = 0; !sound && j < count; ++j) {
        if (!Format::IsCode(block, first + j)) {
          return {TernaryFault::kCode, i + j};
        }
      }
    }
    i += count;
  }
  return {TernaryFault::kNone, -1};
}

}  // namespace

absl::string_view TernaryFormatName(TernaryFormat format) {
  switch (format) {
    case TernaryFormat::kI2S:
      return "I2_S";
    case TernaryFormat::kTQ1_0:
      return "TQ1_0";
    case TernaryFormat::kTQ2_0:
      break;
  }
  return "TQ2_0";
}

int TernaryBlockWeights(TernaryFormat format) {
  return Visit(format, [](auto f) { return decltype(f)::kWeights; });
}

int64_t TernaryBytes(TernaryFormat format, int64_t n) {
  DCHECK(n % TernaryBlockWeights(format) == 0);
  constexpr int kBehindI2S = 32;
  return Visit(format, [n](auto f) {
    using Format = decltype(f);
    return n / Format::kWeights * Format::kBytes +
           (Format::kBlocksHaveScales ? 0 : kBehindI2S);
  });
}

float TernaryScale(TernaryFormat format, const uint8_t* data, int64_t n) {
  return Visit(format, [=](auto f) {
    using Format = decltype(f);
    const int64_t n_blocks = n / Format::kWeights;
    if (!Format::kBlocksHaveScales) {
      float scale;
      std::memcpy(&scale, data + n_blocks * Format::kBytes, sizeof(scale));
      return scale;
    }
    for (int64_t i = 0; i < n_blocks; ++i) {
      const uint16_t half = LastHalf(data + i * Format::kBytes, Format::kBytes);
      if (!IsZero(half)) return HalfToFloat(half);
    }
    return 0.0f;
  });
}

TernaryResult DecodeTernary(TernaryFormat format, const uint8_t* data,
                            float scale, int64_t begin, int64_t end,
                            uint8_t* codes) {
  DCHECK(0 <= begin && begin <= end);
  return Visit(format, [=](auto f) {
    return Decode<decltype(f)>(data, scale, begin, end, codes);
  });
}

void EncodeTernary(TernaryFormat format, const uint8_t* codes, int64_t n,
                   float scale, uint8_t* data) {
  DCHECK(n % TernaryBlockWeights(format) == 0);
  Visit(format, [=](auto f) {
    using Format = decltype(f);
    uint8_t* out = data;
    for (int64_t i = 0; i < n; i += Format::kWeights) {
      const uint8_t* block = codes + i;
      Format::Encode(block, out);
      if (Format::kBlocksHaveScales) {
        const bool all_zero =
            std::all_of(block, block + Format::kWeights,
                        [](uint8_t code) { return code == 1; });
        const uint16_t half = FloatToHalf(all_zero ? 0.0f : scale);
        std::memcpy(out + Format::kBytes - sizeof(half), &half, sizeof(half));
      }
      out += Format::kBytes;
    }
    if (!Format::kBlocksHaveScales) {
      std::memcpy(out, &scale, sizeof(scale));
      std::memset(out + sizeof(scale), 0, 28);
    }
  });
}

}  // namespace tern
