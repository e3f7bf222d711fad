// Pins the bits of numerics class cpu-1 (docs/exactness.md): every compiler,
// machine and instruction set must give these very results. A change here is a
// change of the class: kCpuNumericsClass must change with it.

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/attention.h"
#include "kernels/head.h"
#include "kernels/head_packing.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"
#include "kernels/quantize.h"
#include "kernels/rope_table.h"
#include "kernels/ternary_layout.h"

namespace tern {
namespace {

using testing::AlignedArray;

// A generator of our own: the distributions of the standard library differ
// between its implementations.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t Next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  // Multiples of 2^-20 in [-4, 4).
  float NextFloat() {
    return (static_cast<int>(Next() % (1 << 23)) - (1 << 22)) * 0x1p-20f;
  }
  std::vector<float> Floats(size_t n) {
    std::vector<float> x(n);
    for (float& v : x) v = NextFloat();
    return x;
  }

 private:
  uint64_t state_;
};

// FNV-1a over the bytes, little-endian.
template <typename T>
uint64_t Hash(const T* data, size_t n) {
  uint64_t hash = 14695981039346656037u;
  for (size_t i = 0; i < n; ++i) {
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, &data[i], sizeof(T));
    for (unsigned char byte : bytes) hash = (hash ^ byte) * 1099511628211u;
  }
  return hash;
}
template <typename Array>
uint64_t Hash(const Array& a) {
  return Hash(a.data(), a.size());
}

// Tokens quantised by the kernels under test.
struct Tokens {
  Tokens(const Kernels& kernels, int n_tokens, int n, Random* random)
      : q(static_cast<size_t>(n_tokens) * n), s(n_tokens), sum(n_tokens) {
    for (int t = 0; t < n_tokens; ++t) {
      const std::vector<float> x = random->Floats(n);
      const QuantizedScale scale =
          kernels.quantize_token(x.data(), n, q.data() + t * n);
      s[t] = scale.s;
      sum[t] = scale.sum;
    }
    view = {q.data(), s.data(), sum.data(), n_tokens, n};
  }
  AlignedArray<int8_t> q;
  std::vector<float> s;
  std::vector<int32_t> sum;
  QuantizedTokens view;
};

struct Int8Head {
  Int8Head(const Kernels& kernels, const DenseView& w)
      : upper(Int8PlaneBytes(w.n_rows, w.n_columns)),
        lower(upper.size()),
        scale(HeadPanelCount(w.n_rows) * kHeadPanelRows),
        norm(scale.size()) {
    for (int p = 0; p < HeadPanelCount(w.n_rows); ++p) {
      const size_t at = p * HeadPanelBytes(w.n_columns);
      const int row = p * kHeadPanelRows;
      EXPECT_EQ(PackInt8Panel(kernels, w, p,
                              {upper.data() + at, lower.data() + at,
                               &scale[row], &norm[row]}),
                -1);
    }
    view = {upper.data(), lower.data(), scale.data(),
            norm.data(),  w.n_rows,     w.n_columns};
  }
  // q of rows and columns in the order of a half-block of ternary weights:
  // four columns of sixteen rows after each other.
  std::vector<int8_t> Quantised() const {
    std::vector<int8_t> all;
    const int n_columns = view.n_columns;
    for (int p = 0; p < HeadPanelCount(view.n_rows); ++p) {
      for (int column = 0; column < n_columns; column += 4) {
        for (int r = 0; r < kHeadPanelRows; ++r) {
          for (int j = 0; j < 4; ++j) {
            const int shift = column % 8;  // 0 or 4
            const int high = upper[p * HeadPanelBytes(n_columns) +
                                   column / 8 * 64 + 4 * r + j];
            const int low = lower[(4 * p + r / 4) * HeadGroupBytes(n_columns) +
                                  column / 8 * 16 + r % 4 * 4 + j];
            all.push_back(static_cast<int8_t>(16 * (high >> shift & 15) +
                                              (low >> shift & 15) - 128));
          }
        }
      }
    }
    return all;
  }
  AlignedArray<uint8_t> upper;
  AlignedArray<uint8_t> lower;
  std::vector<float> scale;
  std::vector<float> norm;
  Int8View view;
};

class Golden : public testing::EveryIsa {};
TERN_EVERY_ISA(Golden);

TEST_P(Golden, QuantizeToken) {
  Random random(1);
  const Tokens x(kernels(), 3, 208, &random);
  EXPECT_EQ(Hash(x.q), 0x9ab8f58b3608b3e7u);
  EXPECT_EQ(Hash(x.s), 0x9d2703b84e672ffau);
  EXPECT_EQ(Hash(x.sum), 0xa121ce4596c8e1acu);
}

TEST_P(Golden, TernaryMatmul) {
  Random random(2);
  const Tokens x(kernels(), 5, 208, &random);
  AlignedArray<uint8_t> packed(PackedBytes(40, 208));
  std::vector<uint8_t> codes(40 * 208);
  for (uint8_t& code : codes) code = random.Next() % 3;
  PackTernaryPanel(codes.data(), 32, 208, packed.data());
  PackTernaryPanel(&codes[32 * 208], 8, 208, packed.data() + PanelBytes(208));
  std::vector<float> y(5 * 40);
  kernels().ternary_matmul({packed.data(), 40, 208, 0.7f}, x.view, 0, 40,
                           y.data(), 40);
  EXPECT_EQ(Hash(packed), 0x5fdf6501c3e54bf7u);
  EXPECT_EQ(Hash(y), 0xfaeee792fa102054u);
}

TEST_P(Golden, Elementwise) {
  Random random(3);
  const std::vector<float> a = random.Floats(215);
  const std::vector<float> b = random.Floats(215);
  std::vector<float> y(215);
  kernels().rms_norm(a.data(), b.data(), 215, 1e-5f, y.data());
  EXPECT_EQ(Hash(y), 0xa1014c1ff67029afu);
  kernels().relu2_gate(a.data(), b.data(), 215, y.data());
  EXPECT_EQ(Hash(y), 0x366ed3eea03f0855u);
  kernels().silu_gate(a.data(), b.data(), 215, y.data());
  EXPECT_EQ(Hash(y), 0xbc4fb7b891adc2ebu);
  kernels().add(y.data(), b.data(), 215);
  EXPECT_EQ(Hash(y), 0xd446237f762685f1u);
  kernels().exp_each(a.data(), 215, y.data());
  EXPECT_EQ(Hash(y), 0xafd64cc0103b574cu);
}

TEST_P(Golden, Rope) {
  Random random(4);
  const RopeTable table(100, 500000.0, 3000);
  EXPECT_EQ(Hash(table.cos(0), 3000 * 50), 0x44e606a988fbebd1u);
  EXPECT_EQ(Hash(table.sin(0), 3000 * 50), 0x926d5e1afd80d55cu);
  std::vector<float> x = random.Floats(100);
  kernels().rope_rotate(x.data(), table.cos(2999), table.sin(2999), 100,
                        RopePairing::kNeox);
  EXPECT_EQ(Hash(x), 0xc4c334ca7a4a6e44u);
  kernels().rope_rotate(x.data(), table.cos(7), table.sin(7), 100,
                        RopePairing::kNorm);
  EXPECT_EQ(Hash(x), 0xb8f211b355d05b9cu);
}

TEST_P(Golden, Attention) {
  constexpr int kHeads = 6, kKvHeads = 2, kHeadDim = 36, kPositions = 150;
  constexpr int kBlocks = 10;
  Random random(5);
  const size_t elements = KvBlockElements(kKvHeads, kHeadDim);
  AlignedArray<uint16_t> k(kBlocks * elements);
  AlignedArray<uint16_t> v(kBlocks * elements);
  const int32_t table[kBlocks] = {3, 9, 0, 1, 8, 2, 7, 4, 6, 5};
  for (int j = 0; j < kPositions; ++j) {
    const size_t at = table[j / kKvBlockSize] * elements;
    const std::vector<float> key = random.Floats(kKvHeads * kHeadDim);
    const std::vector<float> value = random.Floats(kKvHeads * kHeadDim);
    kernels().store_kv({k.data() + at, v.data() + at, kKvHeads, kHeadDim},
                       j % kKvBlockSize, key.data(), value.data());
  }
  EXPECT_EQ(Hash(k), 0x95d257cc796143a9u);
  EXPECT_EQ(Hash(v), 0xe979feb6f77bd3ebu);
  const std::vector<float> q = random.Floats(kHeads * kHeadDim);
  std::vector<float> y(q.size());
  kernels().attend({q.data(), k.data(), v.data(), table, kPositions, kHeads,
                    kKvHeads, kHeadDim, 1.0f / 6.0f},
                   0, kHeads, y.data());
  EXPECT_EQ(Hash(y), 0xa21f23cf7b184225u);
}

TEST_P(Golden, Head) {
  Random random(6);
  const std::vector<float> weights = random.Floats(20 * 208);
  const std::vector<float> x = random.Floats(208);
  const DenseView dense = {weights.data(), DenseType::kF32, 20, 208};
  std::vector<float> logits(20);
  kernels().head_stored(dense, x.data(), 0, 20, logits.data());
  EXPECT_EQ(Hash(logits), 0x0642124586a56171u);

  const Int8Head head(kernels(), dense);
  EXPECT_EQ(Hash(head.Quantised()), 0x9a3eaf139d1adb9fu);
  EXPECT_EQ(Hash(head.scale), 0x62991926dbc65a81u);
  const Tokens tokens(kernels(), 1, 208, &random);
  kernels().head_int8(head.view, tokens.view, 0, 20, logits.data(), 20);
  EXPECT_EQ(Hash(logits), 0x8165a48d2a37b290u);
}

TEST_P(Golden, HeadOfEveryType) {
  const struct {
    DenseType type;
    uint64_t logits, packed, scale;
  } kTypes[] = {
      {DenseType::kF16, 0x7e93ebb5a4b2570fu, 0x7d0b323ab0419db8u,
       0x2410f4bb711d166bu},
      {DenseType::kBF16, 0xbfe4b091bf0d981cu, 0xcc03dd26c09d3e9eu,
       0xb028931acc1c6d10u},
      {DenseType::kQ8_0, 0xcea778edc6fe6c27u, 0x21f67a71a6e1cfa1u,
       0xe52f9506f053e421u},
      {DenseType::kQ6_K, 0x11a347d74e900a4bu, 0x36b1d096597feca0u,
       0xcbfcf162c4d77451u},
      {DenseType::kQ4_K, 0x2693848cb4460daeu, 0x4aac90ae06592512u,
       0xa51396502244abcdu},
  };
  for (const auto& golden : kTypes) {
    Random random(7);
    std::vector<uint8_t> bytes(20 * DenseRowBytes(golden.type, 512));
    // Small exponents wherever a float16 or bfloat16 lies.
    for (uint8_t& byte : bytes) byte = random.Next() & 0xbf;
    const DenseView dense = {bytes.data(), golden.type, 20, 512};
    const std::vector<float> x = random.Floats(512);
    std::vector<float> logits(20);
    kernels().head_stored(dense, x.data(), 0, 20, logits.data());
    const Int8Head head(kernels(), dense);
    const int type = static_cast<int>(golden.type);
    EXPECT_EQ(Hash(logits), golden.logits) << type;
    EXPECT_EQ(Hash(head.Quantised()), golden.packed) << type;
    EXPECT_EQ(Hash(head.scale), golden.scale) << type;
  }
}

}  // namespace
}  // namespace tern
