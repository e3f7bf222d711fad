// Tokens that a GPU samples, against those of the worker's sampler.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "kernels/cuda/sample_args.h"
#include "kernels/cuda/test_device.h"
#include "worker/sampler.h"

namespace tern {
namespace {

using cuda::SampleArgs;
using cuda::SampleRow;
using cuda::TestDevice;

struct Row {
  std::vector<float> logits;
  SamplerParams params;
  int32_t position;
};

SampleRow ToSampleRow(const Row& row) {
  SampleRow out = {};
  out.seed = row.params.seed;
  out.sample_index = static_cast<uint64_t>(row.params.sample_index);
  out.position = static_cast<uint64_t>(row.position);
  out.min_weight = cuda::MinWeight(row.params.min_p);
  out.temperature = row.params.temperature;
  out.top_k = row.params.top_k;
  out.top_p = row.params.top_p;
  return out;
}

class SampleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string reason;
    device_ = TestDevice::Create(&reason);
    if (device_ == nullptr) GTEST_SKIP() << reason;
  }

  // Samples all rows at once, and each as the worker does.
  void Check(const std::vector<Row>& rows) {
    const int vocab_size = static_cast<int>(rows[0].logits.size());
    const size_t stride = vocab_size + 5;
    std::vector<float> logits(rows.size() * stride, 1e30f);
    std::vector<SampleRow> how;
    for (size_t i = 0; i < rows.size(); ++i) {
      std::copy(rows[i].logits.begin(), rows[i].logits.end(),
                logits.begin() + i * stride);
      how.push_back(ToSampleRow(rows[i]));
    }
    SampleArgs args;
    args.logits = device_->Input(logits);
    args.logits_stride = stride;
    args.rows = device_->Input(how);
    args.tokens = device_->InOut(std::vector<int32_t>(rows.size(), -7));
    args.vocab_size = vocab_size;
    const absl::Status status =
        device_->Sample(args, static_cast<int>(rows.size()));
    ASSERT_TRUE(status.ok()) << status.ToString();
    for (size_t i = 0; i < rows.size(); ++i) {
      const SamplerParams& p = rows[i].params;
      const absl::StatusOr<int32_t> expected =
          SampleToken(rows[i].logits, p, rows[i].position, &scratch_);
      EXPECT_EQ(expected.ok() ? *expected : -1, args.tokens[i])
          << "row " << i << " vocabulary " << vocab_size << " temperature "
          << p.temperature << " top_k " << p.top_k << " top_p " << p.top_p
          << " min_p " << p.min_p << " seed " << p.seed;
    }
  }

  std::unique_ptr<TestDevice> device_;
  SamplerScratch scratch_;
};

// `spread` is the standard deviation; logits are rounded to multiples of `grid`
// if that is not 0, so that many are equal.
std::vector<float> RandomLogits(int n, float spread, float grid,
                                std::mt19937* rng) {
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(n);
  for (float& logit : logits) {
    logit = normal(*rng);
    if (grid != 0) logit = std::nearbyint(logit / grid) * grid;
  }
  return logits;
}

TEST_F(SampleTest, EveryParameter) {
  std::mt19937 rng(5);
  for (const int vocab_size : {1, 40, 513, 3000}) {
    std::vector<Row> rows;
    for (const float temperature : {0.0f, 0.7f, 1.0f, 3.0f}) {
      for (const int top_k : {0, 1, 20, 512, 600}) {
        for (const float top_p : {1.0f, 0.9f, 0.3f}) {
          for (const float min_p : {0.0f, 0.05f}) {
            Row row;
            row.logits =
                RandomLogits(vocab_size, 3, rng() % 2 == 0 ? 0 : 0.5f, &rng);
            row.params.temperature = temperature;
            row.params.top_k = top_k;
            row.params.top_p = top_p;
            row.params.min_p = min_p;
            row.params.seed = uint64_t{rng()} << 32 | rng();
            row.params.sample_index = static_cast<int32_t>(rng() % 3);
            row.position = static_cast<int32_t>(rng() % 5000);
            rows.push_back(row);
          }
        }
      }
    }
    Check(rows);
  }
}

TEST_F(SampleTest, EqualAndExtremeLogits) {
  std::mt19937 rng(6);
  std::vector<Row> rows;
  for (const float temperature : {0.0f, 1e-30f, 1.0f, 100.0f}) {
    for (const int top_k : {0, 3}) {
      for (const float top_p : {1.0f, 0.5f, 1e-9f}) {
        Row row;
        row.params.temperature = temperature;
        row.params.top_k = top_k;
        row.params.top_p = top_p;
        row.params.min_p = top_p == 0.5f ? 1.0f : 0.0f;
        row.params.seed = rng();
        row.position = 1;
        row.logits.assign(600, 1.5f);
        rows.push_back(row);
        for (size_t i = 0; i < 600; ++i) row.logits[i] = i % 2 ? 0.0f : -0.0f;
        rows.push_back(row);
        row.logits = RandomLogits(600, 1e38f, 0, &rng);
        for (float& x : row.logits) x = std::fmin(std::fmax(x, -3e38f), 3e38f);
        rows.push_back(row);
        row.logits[17] = -std::numeric_limits<float>::max();
        row.logits[99] = std::numeric_limits<float>::max();
        rows.push_back(row);
        row.logits[300] = std::nanf("");
        rows.push_back(row);
        row.logits[300] = -std::numeric_limits<float>::infinity();
        rows.push_back(row);
      }
    }
  }
  Check(rows);
}

// More candidates up to the bound than the list has room for.
TEST_F(SampleTest, TopKWithoutRoomForAList) {
  std::mt19937 rng(7);
  std::vector<Row> rows;
  for (const int top_k : {200, 512}) {
    Row row;
    row.params.top_k = top_k;
    row.params.seed = rng();
    row.position = 9;
    // One thread's logits are low, all others are high.
    row.logits = RandomLogits(8192, 1, 0, &rng);
    for (size_t i = 5; i < row.logits.size(); i += 512) row.logits[i] -= 50;
    rows.push_back(row);
  }
  Check(rows);
}

// As many tokens as the largest vocabularies in use have.
TEST_F(SampleTest, LargeVocabulary) {
  std::mt19937 rng(8);
  std::vector<Row> rows(3);
  for (Row& row : rows) {
    row.logits = RandomLogits(128256, 2, 0, &rng);
    row.params.seed = rng();
    row.position = 77;
  }
  rows[0].params.temperature = 0;
  rows[1].params.top_k = 40;
  rows[1].params.top_p = 0.95f;
  rows[2].params.top_p = 0.8f;
  Check(rows);
}

TEST_F(SampleTest, RowsOfDamagedStatesHaveNoToken) {
  const std::vector<float> logits = {1, 2, 3};
  const std::vector<SampleRow> how(2);
  SampleArgs args;
  args.logits = device_->Input(logits);
  args.rows = device_->Input(how);
  args.is_finite = device_->Input(std::vector<int32_t>{1, 0});
  args.tokens = device_->InOut(std::vector<int32_t>(2, -7));
  args.vocab_size = 3;
  const absl::Status status = device_->Sample(args, 2);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(args.tokens[0], 2);
  EXPECT_EQ(args.tokens[1], -1);
}

}  // namespace
}  // namespace tern
