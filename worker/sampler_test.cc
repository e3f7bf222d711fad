#include "worker/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/exp.h"
#include "worker/philox.h"

namespace tern {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

int32_t Sample(const std::vector<float>& logits, const SamplerParams& params,
               int32_t position = 0) {
  SamplerScratch scratch;
  const auto token = SampleToken(logits, params, position, &scratch);
  EXPECT_TRUE(token.ok()) << token.status();
  return token.ok() ? *token : -1;
}

SamplerParams Greedy() {
  SamplerParams params;
  params.temperature = 0;
  return params;
}

// The page's six steps with full sorts and nothing else.
int32_t SampleSlowly(const std::vector<float>& logits, const SamplerParams& p,
                     int32_t position) {
  struct Candidate {
    int32_t id;
    float z;
    uint64_t w;
  };
  std::vector<Candidate> all;
  for (size_t i = 0; i < logits.size(); ++i) {
    all.push_back({static_cast<int32_t>(i), logits[i] / p.temperature, 0});
  }
  std::stable_sort(
      all.begin(), all.end(),
      [](const Candidate& a, const Candidate& b) { return a.z > b.z; });
  if (p.top_k > 0 && static_cast<size_t>(p.top_k) < all.size()) {
    all.resize(p.top_k);
  }
  uint64_t total = 0;
  const float m = all[0].z;
  for (Candidate& c : all) {
    c.w = static_cast<uint64_t>(
        std::nearbyint(static_cast<double>(Exp(c.z - m)) * 0x1p40));
    total += c.w;
  }
  std::sort(all.begin(), all.end(), [](const Candidate& a, const Candidate& b) {
    return a.w != b.w ? a.w > b.w : a.id < b.id;
  });
  const double target =
      std::ceil(static_cast<double>(p.top_p) * static_cast<double>(total));
  uint64_t sum = 0;
  size_t n_kept = 0;
  while (n_kept < all.size() && sum < static_cast<uint64_t>(target)) {
    sum += all[n_kept++].w;
  }
  all.resize(n_kept);
  const double least = std::ceil(static_cast<double>(p.min_p) * 0x1p40);
  std::vector<Candidate> kept;
  for (const Candidate& c : all) {
    if (c.w >= static_cast<uint64_t>(least)) kept.push_back(c);
  }
  std::sort(kept.begin(), kept.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  total = 0;
  for (const Candidate& c : kept) total += c.w;
  const uint64_t word =
      Philox4x64({static_cast<uint64_t>(position), 0, 0, 0},
                 {p.seed, static_cast<uint64_t>(p.sample_index)})[0];
  const uint64_t r = absl::Uint128High64(absl::uint128(word) * total);
  sum = 0;
  for (const Candidate& c : kept) {
    sum += c.w;
    if (sum > r) return c.id;
  }
  return -1;
}

TEST(Sampler, GreedyTakesTheHighestLogitAndTheLowestIdOfEqualOnes) {
  EXPECT_EQ(Sample({1, 3, 2}, Greedy()), 1);
  EXPECT_EQ(Sample({1, 3, 3, 3}, Greedy()), 1);
  EXPECT_EQ(Sample({-5, -5}, Greedy()), 0);
  EXPECT_EQ(Sample({0.0f, -0.0f}, Greedy()), 0);
  EXPECT_EQ(Sample({-0.0f, 0.0f}, Greedy()), 0);
}

TEST(Sampler, OneCandidateIsGreedy) {
  SamplerParams params;
  params.top_k = 1;
  for (int position = 0; position < 20; ++position) {
    EXPECT_EQ(Sample({1, 3, 3, 2}, params, position), 1);
  }
  params.top_k = 0;
  params.top_p = 1e-6f;
  for (int position = 0; position < 20; ++position) {
    EXPECT_EQ(Sample({1, 3, 3, 2}, params, position), 1);
  }
  params.top_p = 1;
  params.min_p = 1;
  for (int position = 0; position < 20; ++position) {
    EXPECT_EQ(Sample({1, 3, 2}, params, position), 1);
  }
}

TEST(Sampler, EqualsThePlainProcedure) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  const float temperatures[] = {0.05f, 0.7f, 1, 1.5f, 100};
  const int32_t top_ks[] = {0, 1, 2, 40, 700, 5000};
  const float top_ps[] = {1e-9f, 0.1f, 0.5f, 0.9f, 0.999f, 1};
  const float min_ps[] = {0, 1e-3f, 0.1f, 1};
  for (int round = 0; round < 400; ++round) {
    std::vector<float> logits(std::vector<int>{1, 5, 300, 4000}[round % 4]);
    for (float& logit : logits) logit = normal(random);
    // Ties.
    if (round % 3 == 0) {
      for (float& logit : logits) logit = std::round(logit);
    }
    SamplerParams params;
    params.temperature = temperatures[random() % 5];
    params.top_k = top_ks[random() % 6];
    params.top_p = top_ps[random() % 6];
    params.min_p = min_ps[random() % 4];
    params.seed = random();
    params.sample_index = static_cast<int32_t>(random() % 3);
    const int32_t position = static_cast<int32_t>(random() % 5000);
    EXPECT_EQ(Sample(logits, params, position),
              SampleSlowly(logits, params, position))
        << "round " << round;
  }
}

// More equal candidates than float64 counts exactly: the total rounds in the
// product with top_p.
TEST(Sampler, EqualsThePlainProcedureForHugeTotals) {
  std::vector<float> logits(20000, 1);
  logits[3] = -20;
  SamplerParams params;
  for (int position = 0; position < 5; ++position) {
    EXPECT_EQ(Sample(logits, params, position),
              SampleSlowly(logits, params, position));
  }
}

TEST(Sampler, FrequenciesAreTheProbabilities) {
  const std::vector<float> logits = {0, 1, 2, 3};
  SamplerParams params;
  params.seed = 42;
  constexpr int kDraws = 40000;
  std::vector<int> counts(4);
  for (int i = 0; i < kDraws; ++i) ++counts[Sample(logits, params, i)];
  const double sum = 1 + std::exp(1) + std::exp(2) + std::exp(3);
  double chi2 = 0;
  for (int i = 0; i < 4; ++i) {
    const double expected = kDraws * std::exp(i) / sum;
    chi2 += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  // 99.9 % of all seeds stay below this, with three degrees of freedom.
  EXPECT_LT(chi2, 16.3);
}

TEST(Sampler, SeedIndexAndPositionEachChangeTheDraw) {
  const std::vector<float> logits(1000, 0);
  SamplerParams base;
  SamplerParams seed = base;
  seed.seed = 1;
  SamplerParams index = base;
  index.sample_index = 1;
  int n_equal = 0;
  for (int position = 0; position < 50; ++position) {
    const int32_t token = Sample(logits, base, position);
    EXPECT_EQ(Sample(logits, base, position), token);
    n_equal += Sample(logits, seed, position) == token;
    n_equal += Sample(logits, index, position) == token;
    n_equal += Sample(logits, base, position + 1) == token;
  }
  EXPECT_LT(n_equal, 5);
}

TEST(Sampler, LogitsThatAreNotFiniteAreAnError) {
  SamplerScratch scratch;
  for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
    for (const float temperature : {0.0f, 1.0f}) {
      SamplerParams params;
      params.temperature = temperature;
      EXPECT_TRUE(absl::IsDataLoss(
          SampleToken({1, bad, 2}, params, 0, &scratch).status()));
    }
  }
}

TEST(Sampler, TheSmallestTemperatureIsGreedy) {
  SamplerParams params;
  params.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(Sample({-1e30f, 1, 2, -3}, params), 1);  // both beyond any float
  EXPECT_EQ(Sample({-2, -1}, params), 0);
  params.temperature = 1e-3f;
  EXPECT_EQ(Sample({-1e30f, 1, 2, -3}, params), 2);
}

TEST(Sampler, ExtremeLogitsHaveAnAnswer) {
  const float max = std::numeric_limits<float>::max();
  EXPECT_EQ(Sample({-max, max, 0}, SamplerParams()), 1);
  EXPECT_EQ(Sample({max, -max}, Greedy()), 0);
}

}  // namespace
}  // namespace tern
