#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/cuda/normalise_args.h"
#include "kernels/cuda/test_device.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"
#include "kernels/quantize.h"

namespace tern::cuda {
namespace {

using ::tern::testing::AddExtremes;
using ::tern::testing::RandomFloats;
using ::tern::testing::SameArray;
using ::tern::testing::SameArrays;
using ::tern::testing::SameBits;

constexpr float kEps = 1e-5f;

struct Case {
  NormaliseInput input;
  bool has_weight;
  int n;
  int n_tokens;
  int gap;       // columns between tokens that are not theirs
  int extremes;  // 0: none; 1: without NaN and infinities; 2: with
};

class NormaliseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = TestDevice::Create(&reason);
    if (device_ == nullptr) GTEST_SKIP() << reason;
  }

  // Runs a case and compares everything with the CPU's reference.
  void Check(const Case& c) {
    SCOPED_TRACE(::testing::Message()
                 << "input " << static_cast<int>(c.input) << " weight "
                 << c.has_weight << " n " << c.n << " tokens " << c.n_tokens
                 << " extremes " << c.extremes);
    std::mt19937 rng(c.n + 7 * c.n_tokens);
    const size_t stride = c.n + c.gap;
    std::vector<float> x = RandomFloats(c.n_tokens * stride, &rng);
    std::vector<float> y = RandomFloats(c.n_tokens * stride, &rng);
    const std::vector<float> weight = RandomFloats(c.n, &rng);
    if (c.extremes > 0) {
      AddExtremes(c.extremes == 2, &rng, &x);
      AddExtremes(c.extremes == 2, &rng, &y);
    }

    NormaliseArgs args;
    args.input = c.input;
    args.x_stride = args.y_stride = stride;
    args.x = device_->InOut(x);
    args.y = c.input == NormaliseInput::kPlain ? nullptr : device_->Input(y);
    args.weight = c.has_weight ? device_->Input(weight) : nullptr;
    args.eps = kEps;
    args.n = c.n;
    args.q = device_->InOut(std::vector<int8_t>(c.n_tokens * c.n, 99));
    args.s = device_->InOut(std::vector<float>(c.n_tokens, -1));
    args.sum = device_->InOut(std::vector<int32_t>(c.n_tokens, -1));
    args.is_finite = device_->InOut(std::vector<int32_t>(c.n_tokens, -1));
    const absl::Status status = device_->Normalise(args, c.n_tokens);
    ASSERT_TRUE(status.ok()) << status.ToString();

    for (int t = 0; t < c.n_tokens; ++t) {
      CheckToken(c, args, t, &x[t * stride], &y[t * stride], weight);
    }
    EXPECT_TRUE(SameArray(x.data(), args.x, x.size()));
  }

 private:
  // `x` becomes what the kernel should leave there.
  void CheckToken(const Case& c, const NormaliseArgs& args, int t, float* x,
                  const float* y, const std::vector<float>& weight) {
    const Kernels& ref = KernelsFor(Isa::kRef);
    std::vector<float> h(x, x + c.n);
    switch (c.input) {
      case NormaliseInput::kPlain:
        break;
      case NormaliseInput::kResidual:
        ref.add(x, y, c.n);
        h.assign(x, x + c.n);
        break;
      case NormaliseInput::kRelu2Gate:
        ref.relu2_gate(x, y, c.n, h.data());
        break;
      case NormaliseInput::kSiluGate:
        ref.silu_gate(x, y, c.n, h.data());
        break;
    }
    if (c.has_weight) {
      ref.rms_norm(h.data(), weight.data(), c.n, kEps, h.data());
    }
    std::vector<int8_t> q(c.n);
    const QuantizedScale scale = ref.quantize_token(h.data(), c.n, q.data());
    EXPECT_TRUE(SameArray(q.data(), args.q + t * c.n, c.n)) << "token " << t;
    EXPECT_TRUE(SameBits(scale.s, args.s[t])) << scale.s << " " << args.s[t];
    EXPECT_EQ(scale.sum, args.sum[t]);
    bool is_finite = true;
    for (const float v : h) is_finite = is_finite && std::isfinite(v);
    EXPECT_EQ(is_finite, args.is_finite[t] == 1) << "token " << t;
  }

  std::unique_ptr<TestDevice> device_;
};

constexpr NormaliseInput kInputs[] = {
    NormaliseInput::kPlain, NormaliseInput::kResidual,
    NormaliseInput::kRelu2Gate, NormaliseInput::kSiluGate};

TEST_F(NormaliseTest, EqualsTheCpu) {
  for (const NormaliseInput input : kInputs) {
    for (const bool has_weight : {false, true}) {
      Check({input, has_weight, 256, 3, 0, 0});
      Check({input, has_weight, 2560, 1, 16, 0});
    }
  }
}

TEST_F(NormaliseTest, OddWidths) {
  for (const int n : {4, 12, 16, 36, 100, 252, 260, 1028, 6912}) {
    Check({NormaliseInput::kResidual, true, n, 2, 4, 0});
  }
  Check({NormaliseInput::kPlain, true, kNormaliseColumnsMax, 1, 0, 0});
}

TEST_F(NormaliseTest, Extremes) {
  for (const NormaliseInput input : kInputs) {
    for (const bool has_weight : {false, true}) {
      Check({input, has_weight, 64, 4, 0, 1});
      Check({input, has_weight, 64, 4, 0, 2});
    }
  }
}

}  // namespace
}  // namespace tern::cuda
