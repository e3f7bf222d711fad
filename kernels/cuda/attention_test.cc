#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/cuda/attention_batch.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/device_limits.h"
#include "kernels/cuda/test_device.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/kernels_testing.h"

namespace tern::cuda {
namespace {

using ::tern::testing::RandomFloats;
using ::tern::testing::SameArray;

constexpr uint16_t kHalfNan = 0x7e00;
constexpr float kUntouched = -12345.0f;

struct Shape {
  int n_heads;
  int n_kv_heads;
  int head_dim;
};

// Consecutive tokens of a sequence that come in a step.
struct Tokens {
  int n_positions;  // that the first sees
  int n_tokens;
};

// A step of several sequences over one pool, whose blocks are in random order
// and hold NaN wherever no position is.
class Step {
 public:
  Step(const Shape& shape, const std::vector<Tokens>& sequences,
       int tokens_per_run, unsigned seed = 1)
      : shape_(shape), rng_(seed) {
    int n_blocks = 0;
    for (const Tokens& s : sequences) {
      n_blocks += BlocksOf(s);
      n_tokens_ += s.n_tokens;
    }
    tables_.resize(n_blocks);
    std::iota(tables_.begin(), tables_.end(), 0);
    std::shuffle(tables_.begin(), tables_.end(), rng_);
    const size_t elements = KvBlockElements(shape.n_kv_heads, shape.head_dim);
    k_.assign(n_blocks * elements, kHalfNan);
    v_.assign(n_blocks * elements, kHalfNan);

    int table_begin = 0;
    int token = 0;
    for (const Tokens& s : sequences) {
      for (int j = 0; j < s.n_positions + s.n_tokens - 1; ++j) {
        StoreRandom(tables_[table_begin + j / kKvBlockSize], j % kKvBlockSize);
      }
      for (int i = 0; i < s.n_tokens; i += tokens_per_run) {
        runs_.push_back({token + i, std::min(tokens_per_run, s.n_tokens - i),
                         s.n_positions + i, table_begin});
      }
      token += s.n_tokens;
      table_begin += BlocksOf(s);
    }
    q_ = RandomFloats(n_tokens_ * q_stride(), &rng_);
  }

  // What the CPU makes of it.
  std::vector<float> Expected() const {
    std::vector<float> y(n_tokens_ * RowFloats());
    for (const AttentionRun& run : runs_) {
      for (int i = 0; i < run.n_tokens; ++i) {
        const size_t token = run.first_token + i;
        AttentionArgs args;
        args.q = &q_[token * q_stride()];
        args.k_pool = k_.data();
        args.v_pool = v_.data();
        args.block_table = &tables_[run.table_begin];
        args.n_positions = run.n_positions + i;
        args.n_heads = shape_.n_heads;
        args.n_kv_heads = shape_.n_kv_heads;
        args.head_dim = shape_.head_dim;
        args.scale = scale();
        KernelsFor(Isa::kRef).attend(args, 0, shape_.n_heads,
                                     &y[token * RowFloats()]);
      }
    }
    return y;
  }

  AttentionWork Work() const {
    AttentionWork work = {};
    work.n_runs = static_cast<int>(runs_.size());
    for (const AttentionRun& run : runs_) {
      work.run_tokens_max = std::max(work.run_tokens_max, run.n_tokens);
      work.n_positions_max =
          std::max(work.n_positions_max, run.n_positions + run.n_tokens - 1);
    }
    work.n_tokens = n_tokens_;
    work.n_heads = shape_.n_heads;
    work.n_kv_heads = shape_.n_kv_heads;
    work.head_dim = shape_.head_dim;
    return work;
  }

  // What the device makes of it under a plan. Empty after a failure.
  std::vector<float> Run(const AttentionPlan& plan, TestDevice* device) const {
    const AttentionWork work = Work();
    AttentionBatch batch;
    batch.q = device->Input(q_);
    batch.q_stride = q_stride();
    batch.k_pool = device->Input(k_);
    batch.v_pool = device->Input(v_);
    batch.block_tables = device->Input(tables_);
    batch.runs = device->Input(runs_);
    batch.n_runs = work.n_runs;
    batch.n_heads = work.n_heads;
    batch.n_kv_heads = work.n_kv_heads;
    batch.head_dim = work.head_dim;
    batch.scale = scale();
    const std::vector<float> untouched(n_tokens_ * RowFloats(), kUntouched);
    batch.y = device->InOut(untouched);
    batch.run_tokens_max = work.run_tokens_max;
    batch.n_tokens = work.n_tokens;
    if (plan.splits) {
      batch.partials = device->InOut(std::vector<float>(
          AttentionPartialBytes(work) / sizeof(float), std::nanf("")));
    }
    const absl::Status status = device->Attend(plan, batch);
    EXPECT_TRUE(status.ok()) << status.ToString();
    if (!status.ok()) return {};
    return std::vector<float>(batch.y, batch.y + untouched.size());
  }

  // Makes some queries or stored values what goes wrong first.
  void AddExtremes() {
    ::tern::testing::AddExtremes(/*with_nan=*/true, &rng_, &q_);
  }

 private:
  static int BlocksOf(const Tokens& s) {
    return (s.n_positions + s.n_tokens - 1 + kKvBlockSize - 1) / kKvBlockSize;
  }
  size_t RowFloats() const {
    return static_cast<size_t>(shape_.n_heads) * shape_.head_dim;
  }
  // As behind a product of queries, keys and values in one.
  size_t q_stride() const {
    return RowFloats() + 2 * shape_.n_kv_heads * shape_.head_dim;
  }
  float scale() const {
    return static_cast<float>(1 / std::sqrt(double{1} * shape_.head_dim));
  }
  void StoreRandom(int32_t block, int slot) {
    const size_t n = shape_.n_kv_heads * shape_.head_dim;
    const size_t at =
        block * KvBlockElements(shape_.n_kv_heads, shape_.head_dim);
    const std::vector<float> k = RandomFloats(n, &rng_);
    const std::vector<float> v = RandomFloats(n, &rng_);
    KernelsFor(Isa::kRef).store_kv(
        {&k_[at], &v_[at], shape_.n_kv_heads, shape_.head_dim}, slot, k.data(),
        v.data());
  }

  Shape shape_;
  std::mt19937 rng_;
  int n_tokens_ = 0;
  std::vector<int32_t> tables_;
  std::vector<uint16_t> k_;
  std::vector<uint16_t> v_;
  std::vector<AttentionRun> runs_;
  std::vector<float> q_;
};

// As PlanAttention() would make it for a card on which this is best.
AttentionPlan Plan(const AttentionWork& work, int tile_rows, bool splits) {
  AttentionPlan plan =
      PlanAttentionAs(work, DeviceLimits{84, 99 << 10}, tile_rows, splits);
  EXPECT_EQ(plan.tile_rows, tile_rows);
  return plan;
}

class AttentionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = TestDevice::Create(&reason);
    if (device_ == nullptr) GTEST_SKIP() << reason;
  }

  void Check(const Step& step, int tile_rows, bool splits) {
    SCOPED_TRACE(::testing::Message()
                 << "tile_rows " << tile_rows << " splits " << splits);
    const std::vector<float> expected = step.Expected();
    const std::vector<float> actual =
        step.Run(Plan(step.Work(), tile_rows, splits), device_.get());
    ASSERT_EQ(actual.size(), expected.size());
    EXPECT_TRUE(SameArray(expected.data(), actual.data(), expected.size()));
  }
  void CheckAllPlans(const Step& step) {
    for (const int tile_rows : {1, 2, 4, 8, 16}) {
      for (const bool splits : {false, true}) Check(step, tile_rows, splits);
    }
  }

  std::unique_ptr<TestDevice> device_;
};

TEST_F(AttentionTest, DecodeEqualsTheCpuByEveryPlan) {
  CheckAllPlans(Step({8, 2, 64}, {{1, 1}, {64, 1}, {65, 1}, {150, 1}}, 1));
}

TEST_F(AttentionTest, PromptEqualsTheCpuByEveryPlan) {
  CheckAllPlans(Step({6, 2, 32}, {{1, 21}, {60, 9}, {120, 1}}, 5));
}

TEST_F(AttentionTest, EveryLength) {
  for (int n = 1; n <= 140; n += n < 20 || (n > 58 && n < 70) ? 1 : 9) {
    SCOPED_TRACE(n);
    Check(Step({4, 1, 8}, {{n, 1}}, 1), 4, n % 2 == 0);
  }
}

TEST_F(AttentionTest, EveryHeadDim) {
  for (const int head_dim : {4, 60, 64, 68, 80, 96, 100, 128, 256}) {
    SCOPED_TRACE(head_dim);
    Check(Step({2, 1, head_dim}, {{70, 1}}, 1), 2, true);
    Check(Step({2, 1, head_dim}, {{66, 3}}, 8), 16, false);
  }
}

TEST_F(AttentionTest, EveryGroup) {
  for (const int group : {1, 2, 3, 4, 5, 7, 8, 16, 20}) {
    SCOPED_TRACE(group);
    const Shape shape = {2 * group, 2, 16};
    Check(Step(shape, {{67, 1}, {30, 1}}, 1), 4, false);
    Check(Step(shape, {{62, 6}}, AttentionRunTokens(2 * group, 2)), 16, true);
  }
}

TEST_F(AttentionTest, QueriesThatAreNoNumbers) {
  for (const unsigned seed : {1u, 2u, 3u}) {
    Step step({4, 2, 8}, {{1, 5}, {100, 2}, {130, 1}}, 4, seed);
    step.AddExtremes();
    Check(step, 4, true);
    Check(step, 16, false);
  }
}

// A sequence that is decoded and one that is replayed as a prompt get the same
// bits, whoever else is in the step.
TEST_F(AttentionTest, DecodeEqualsPrompt) {
  const Step prompt({4, 1, 16}, {{1, 80}}, 4);
  const Step decode({4, 1, 16}, {{1, 80}}, 1);
  const std::vector<float> a =
      prompt.Run(Plan(prompt.Work(), 16, false), device_.get());
  const std::vector<float> b =
      decode.Run(Plan(decode.Work(), 4, true), device_.get());
  ASSERT_FALSE(a.empty());
  ASSERT_EQ(a.size(), b.size());
  EXPECT_TRUE(SameArray(a.data(), b.data(), a.size()));
}

}  // namespace
}  // namespace tern::cuda
