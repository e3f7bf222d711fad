#include "model/ternary_codec.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/float16.h"

namespace tern {
namespace {

constexpr TernaryFormat kFormats[] = {
    TernaryFormat::kI2S, TernaryFormat::kTQ1_0, TernaryFormat::kTQ2_0};

using Codes = std::vector<uint8_t>;
using Bytes = std::vector<uint8_t>;

Codes SomeCodes(int n) {
  Codes codes(n);
  for (int i = 0; i < n; ++i) codes[i] = (i * i + i / 7) % 3;
  return codes;
}

Codes RandomCodes(int n, std::mt19937* rng) {
  Codes codes(n);
  for (uint8_t& code : codes) code = (*rng)() % 3;
  return codes;
}

// Bytes of hexadecimal digits; blanks are passed over.
Bytes FromHex(const std::string& text) {
  std::string digits;
  for (char c : text) {
    if (c != ' ') digits += c;
  }
  Bytes bytes;
  for (size_t i = 0; i < digits.size(); i += 2) {
    bytes.push_back(
        static_cast<uint8_t>(std::stoi(digits.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

Bytes Encode(TernaryFormat format, const Codes& codes, float scale) {
  Bytes data(TernaryBytes(format, codes.size()), 0xee);
  EncodeTernary(format, codes.data(), codes.size(), scale, data.data());
  return data;
}

// Where the scale of block `block` lies, of a format that has some.
uint8_t* ScaleOf(TernaryFormat format, Bytes* data, int block) {
  return data->data() + TernaryBytes(format, 256) * (block + 1) - 2;
}

void SetScale(TernaryFormat format, Bytes* data, int block, float scale) {
  const uint16_t half = FloatToHalf(scale);
  std::memcpy(ScaleOf(format, data, block), &half, sizeof(half));
}

TernaryResult Decode(TernaryFormat format, const Bytes& data, int64_t begin,
                     int64_t end, Codes* codes) {
  codes->assign(end - begin, 99);
  return DecodeTernary(format, data.data(), 0.75f, begin, end, codes->data());
}

// A byte that no weights give: four codes 3, or no five digits.
uint8_t BadByte(TernaryFormat format) {
  return format == TernaryFormat::kTQ1_0 ? 0x01 : 0xff;
}

struct Known {
  TernaryFormat format;
  int n;
  const char* hex;
};

// SomeCodes(n) with scale 0.75 as other projects' quantisers wrote them.
constexpr Known kKnown[] = {
    {TernaryFormat::kI2S, 128,
     "2556600664400aa88448899558811990022aa112222556600664400aa8844889"
     "0000403f 00000000000000000000000000000000000000000000000000000000"},
    {TernaryFormat::kTQ2_0, 256,
     "589509901901a02a122162562542640680a84a8488589509901901a02a122162"
     "09901901a02a122162562542640680a84a8488589509901901a02a1221625625"
     "003a"},
    {TernaryFormat::kTQ1_0, 256,
     "4782901198581cf8b76bc2d685b033c80953e723414782901198581cf8b76bc2"
     "e429ee3d35f70d501567a805705c22e3 8fc1e756 003a"},
};

TEST(TernaryCodec, KnownBytesDecode) {
  for (const Known& known : kKnown) {
    const Bytes data = FromHex(known.hex);
    ASSERT_EQ(static_cast<int64_t>(data.size()),
              TernaryBytes(known.format, known.n));
    EXPECT_EQ(TernaryScale(known.format, data.data(), known.n), 0.75f);
    Codes codes;
    const TernaryResult result = Decode(known.format, data, 0, known.n, &codes);
    EXPECT_EQ(result.fault, TernaryFault::kNone);
    EXPECT_EQ(result.weight, -1);
    EXPECT_EQ(codes, SomeCodes(known.n))
        << std::string(TernaryFormatName(known.format));
  }
}

TEST(TernaryCodec, KnownBytesAreWritten) {
  for (const Known& known : kKnown) {
    EXPECT_EQ(Encode(known.format, SomeCodes(known.n), 0.75f),
              FromHex(known.hex))
        << std::string(TernaryFormatName(known.format));
  }
}

TEST(TernaryCodec, WhatIsWrittenIsReadBack) {
  for (TernaryFormat format : kFormats) {
    for (unsigned seed = 0; seed < 20; ++seed) {
      std::mt19937 rng(seed);
      const int n = TernaryBlockWeights(format) * (1 + rng() % 5);
      const Codes codes = RandomCodes(n, &rng);
      const Bytes data = Encode(format, codes, 0.75f);
      Codes decoded;
      ASSERT_EQ(Decode(format, data, 0, n, &decoded).fault,
                TernaryFault::kNone);
      ASSERT_EQ(decoded, codes)
          << std::string(TernaryFormatName(format)) << " seed " << seed;
    }
  }
}

TEST(TernaryCodec, AnyRangeIsDecoded) {
  for (TernaryFormat format : kFormats) {
    constexpr int n = 768;
    std::mt19937 rng(1);
    const Codes codes = RandomCodes(n, &rng);
    const Bytes data = Encode(format, codes, 0.75f);
    for (int i = 0; i < 2000; ++i) {
      const int begin = rng() % (n + 1);
      const int end = begin + rng() % (n + 1 - begin);
      Codes decoded;
      ASSERT_EQ(Decode(format, data, begin, end, &decoded).fault,
                TernaryFault::kNone);
      ASSERT_EQ(decoded, Codes(codes.begin() + begin, codes.begin() + end))
          << "[" << begin << ", " << end << ")";
    }
  }
}

// Every byte at every place of a block: decoded as the format is defined, or
// found.
TEST(TernaryCodec, EveryByteIsSoundOrFound) {
  struct Run {
    int first_byte, first_weight, stride, digits;
  };
  struct Layout {
    TernaryFormat format;
    std::vector<Run> runs;
  };
  const Layout layouts[] = {
      {TernaryFormat::kI2S, {{0, 0, 32, 4}}},
      {TernaryFormat::kTQ2_0, {{0, 0, 32, 4}, {32, 128, 32, 4}}},
      {TernaryFormat::kTQ1_0,
       {{0, 0, 32, 5}, {32, 160, 16, 5}, {48, 240, 4, 4}}},
  };
  for (const auto& [format, runs] : layouts) {
    const int n = TernaryBlockWeights(format);
    const Bytes sound = Encode(format, SomeCodes(n), 0.75f);
    for (const Run& run : runs) {
      for (int p : {0, 1, run.stride - 1}) {
        int n_sound = 0;
        for (int byte = 0; byte < 256; ++byte) {
          // The digits of the byte, or none.
          std::vector<int> digits;
          int first_bad = 0;
          if (format == TernaryFormat::kTQ1_0) {
            const int n_values = run.digits == 5 ? 243 : 81;
            for (int value = 0; value < n_values; ++value) {
              const int shifted = run.digits == 5 ? value : 3 * value;
              if ((shifted * 256 + 242) / 243 != byte) continue;
              for (int unit = n_values / 3; unit > 0; unit /= 3) {
                digits.push_back(value / unit % 3);
              }
            }
          } else {
            for (int k = 0; k < 4; ++k) {
              const int shift =
                  format == TernaryFormat::kI2S ? 6 - 2 * k : 2 * k;
              digits.push_back(byte >> shift & 3);
            }
            const auto three = std::find(digits.begin(), digits.end(), 3);
            if (three != digits.end()) {
              first_bad = three - digits.begin();
              digits.clear();
            }
          }
          Bytes data = sound;
          data[run.first_byte + p] = static_cast<uint8_t>(byte);
          Codes codes;
          const TernaryResult result = Decode(format, data, 0, n, &codes);
          if (digits.empty()) {
            ASSERT_EQ(result.fault, TernaryFault::kCode);
            ASSERT_EQ(result.weight,
                      run.first_weight + first_bad * run.stride + p);
            continue;
          }
          ++n_sound;
          Codes expected = SomeCodes(n);
          for (int k = 0; k < run.digits; ++k) {
            expected[run.first_weight + k * run.stride + p] = digits[k];
          }
          ASSERT_EQ(result.fault, TernaryFault::kNone) << byte;
          ASSERT_EQ(codes, expected) << byte;
        }
        EXPECT_EQ(n_sound, run.digits == 5 ? 243 : 81);
      }
    }
  }
}

TEST(TernaryCodec, AFaultIsSeenByTheRangesThatHaveIt) {
  for (TernaryFormat format : kFormats) {
    constexpr int n = 768;
    Bytes data = Encode(format, SomeCodes(n), 0.75f);
    // In the second 256 weights.
    const int64_t base =
        format == TernaryFormat::kI2S ? 64 : TernaryBytes(format, 256);
    data[base + 5] = BadByte(format);
    Codes codes;
    for (int begin = 0; begin < n; begin += 3) {
      const TernaryResult result = Decode(format, data, begin, n, &codes);
      if (begin <= 256 + 5) {
        EXPECT_EQ(result.fault, TernaryFault::kCode);
        EXPECT_EQ(result.weight, 256 + 5);
      }
      if (result.fault == TernaryFault::kNone) continue;
      EXPECT_EQ((result.weight - 256) % 32, 5);
      EXPECT_EQ(Decode(format, data, begin, result.weight, &codes).fault,
                TernaryFault::kNone);
      EXPECT_EQ(Decode(format, data, begin, result.weight + 1, &codes).fault,
                TernaryFault::kCode);
    }
    EXPECT_EQ(Decode(format, data, 512, n, &codes).fault, TernaryFault::kNone);
  }
}

TEST(TernaryCodec, BlocksOfAnotherScaleAreFound) {
  for (TernaryFormat format : {TernaryFormat::kTQ1_0, TernaryFormat::kTQ2_0}) {
    for (float other :
         {0.5f, -0.75f, 0.75048828125f, std::numeric_limits<float>::infinity(),
          std::numeric_limits<float>::quiet_NaN()}) {
      Bytes data = Encode(format, SomeCodes(1024), 0.75f);
      SetScale(format, &data, 2, other);
      EXPECT_EQ(TernaryScale(format, data.data(), 1024), 0.75f);
      Codes codes;
      const TernaryResult result = Decode(format, data, 0, 1024, &codes);
      EXPECT_EQ(result.fault, TernaryFault::kScale) << other;
      EXPECT_EQ(result.weight, 512);
      EXPECT_EQ(Decode(format, data, 0, 512, &codes).fault,
                TernaryFault::kNone);
      EXPECT_EQ(Decode(format, data, 768, 1024, &codes).fault,
                TernaryFault::kNone);
    }
  }
}

TEST(TernaryCodec, BlocksOfScaleZeroAreZeros) {
  for (TernaryFormat format : {TernaryFormat::kTQ1_0, TernaryFormat::kTQ2_0}) {
    for (float zero : {0.0f, -0.0f}) {
      Bytes data = Encode(format, SomeCodes(768), 0.75f);
      SetScale(format, &data, 0, zero);
      // Whatever is in it.
      data[3] = BadByte(format);
      EXPECT_EQ(TernaryScale(format, data.data(), 768), 0.75f);
      Codes expected = SomeCodes(768);
      std::fill(expected.begin(), expected.begin() + 256, 1);
      Codes codes;
      EXPECT_EQ(Decode(format, data, 0, 768, &codes).fault,
                TernaryFault::kNone);
      EXPECT_EQ(codes, expected);
    }
    const Bytes zeros = Encode(format, Codes(512, 1), 0.75f);
    EXPECT_EQ(TernaryScale(format, zeros.data(), 512), 0.0f);
    Codes codes;
    EXPECT_EQ(Decode(format, zeros, 0, 512, &codes).fault, TernaryFault::kNone);
    EXPECT_EQ(codes, Codes(512, 1));
  }
}

TEST(TernaryCodec, TheScaleOfI2SIsAnyFloat) {
  const float inf = std::numeric_limits<float>::infinity();
  for (float scale : {1.2345678f, -2.0f, 1e-42f, inf, 0.0f}) {
    const Bytes data = Encode(TernaryFormat::kI2S, SomeCodes(256), scale);
    EXPECT_EQ(TernaryScale(TernaryFormat::kI2S, data.data(), 256), scale);
  }
}

TEST(TernaryCodec, ScalesOfBlocksRoundToFloat16) {
  for (TernaryFormat format : {TernaryFormat::kTQ1_0, TernaryFormat::kTQ2_0}) {
    const Bytes data = Encode(format, SomeCodes(256), 0.1f);
    EXPECT_EQ(TernaryScale(format, data.data(), 256), 0x1.998p-4f);
  }
}

TEST(TernaryCodec, SizesAreThoseOfTheFile) {
  EXPECT_EQ(TernaryBytes(TernaryFormat::kI2S, 8640 * 3200), 6912032);
  EXPECT_EQ(TernaryBytes(TernaryFormat::kTQ1_0, 2560 * 2560), 1382400);
  EXPECT_EQ(TernaryBytes(TernaryFormat::kTQ2_0, 2560 * 2560), 1689600);
}

}  // namespace
}  // namespace tern
