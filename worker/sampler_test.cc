#include "worker/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "absl/numeric/int128.h"
#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "kernels/exp.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/log_double.h"
#include "worker/philox.h"
#include "worker/token_history.h"

namespace tern {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

constexpr float kMax = std::numeric_limits<float>::max();

int32_t Sample(const std::vector<float>& logits, const SamplerParams& params,
               int32_t position = 0, const TokenHistory& history = {}) {
  SamplerScratch scratch;
  const auto token = SampleToken(logits, params, position, &scratch, &history);
  EXPECT_TRUE(token.ok()) << token.status();
  return token.ok() ? *token : -1;
}

SamplerParams Greedy() {
  SamplerParams params;
  params.temperature = 0;
  return params;
}

// The tokens of a sequence.
struct Log {
  std::vector<int32_t> prompt;
  std::vector<int32_t> output;

  TokenHistory History() const {
    TokenHistory history;
    for (const int32_t token : prompt) history.AddPrompt(token);
    for (const int32_t token : output) history.AddOutput(token);
    return history;
  }
};

float Finite(float x) { return std::fmin(std::fmax(x, -kMax), kMax); }

// The page's logits after penalties and bias, id by id.
std::vector<float> AdjustSlowly(std::vector<float> logits,
                                const SamplerParams& p, const Log& log) {
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const auto in_prompt = std::count(log.prompt.begin(), log.prompt.end(), id);
    const auto in_output = std::count(log.output.begin(), log.output.end(), id);
    float x = logits[i];
    if (in_prompt + in_output > 0) {
      x = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
    }
    if (in_output > 0) {
      const float product = p.frequency_penalty * static_cast<float>(in_output);
      x = x - product;
      x = x - p.presence_penalty;
    }
    x = Finite(x);
    for (const LogitBias& bias : p.logit_bias) {
      if (bias.token_id == id) x = Finite(x + bias.bias);
    }
    logits[i] = x;
  }
  return logits;
}

// The page's steps with full sorts and nothing else.
int32_t SampleSlowly(std::vector<float> logits, const SamplerParams& p,
                     int32_t position, const Log& log = {}) {
  logits = AdjustSlowly(std::move(logits), p, log);
  const bool masked = position - p.prompt_token_count < p.min_output_tokens;
  struct Candidate {
    int32_t id;
    float z;
    uint64_t w;
  };
  std::vector<Candidate> all;
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    if (masked &&
        std::count(p.stop_token_ids.begin(), p.stop_token_ids.end(), id) > 0) {
      continue;
    }
    const float z =
        p.temperature == 0 ? logits[i] : Finite(logits[i] / p.temperature);
    all.push_back({id, z, 0});
  }
  std::stable_sort(
      all.begin(), all.end(),
      [](const Candidate& a, const Candidate& b) { return a.z > b.z; });
  if (p.temperature == 0) return all[0].id;
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

TEST(Sampler, EqualsThePlainProcedureWithChangedLogits) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0, 3);
  const auto one_of = [&random](const std::vector<float>& values) {
    return values[random() % values.size()];
  };
  int n_changed = 0;
  for (int round = 0; round < 600; ++round) {
    const int n = std::vector<int>{2, 5, 300, 1500}[round % 4];
    std::vector<float> logits(n);
    for (float& logit : logits) logit = normal(random);
    if (round % 3 == 0) {
      for (float& logit : logits) logit = std::round(logit);
    }
    SamplerParams plain;
    plain.temperature = one_of({0, 0.05f, 0.7f, 1.5f});
    plain.top_k = static_cast<int32_t>(one_of({0, 1, 2, 40, 700}));
    plain.top_p = one_of({0.1f, 0.9f, 1});
    plain.min_p = one_of({0, 0.1f});
    plain.seed = random();
    SamplerParams params = plain;
    params.repetition_penalty = one_of({1, 1.1f, 0.5f, 10, 1e-38f});
    params.frequency_penalty = one_of({0, 0.3f, 2, -2});
    params.presence_penalty = one_of({0, 0.7f, -2});
    for (int32_t id = 0; id < n; ++id) {
      if (random() % 8 == 0) {
        params.logit_bias.push_back({id, one_of({-100, 0.1f, 3, 100})});
      }
      if (id > 0 && random() % 8 == 0) params.stop_token_ids.push_back(id);
    }
    Log log;
    for (int i = random() % 40; i > 0; --i) {
      log.prompt.push_back(static_cast<int32_t>(random() % n));
    }
    for (int i = random() % 40; i > 0; --i) {
      log.output.push_back(static_cast<int32_t>(random() % n));
    }
    params.prompt_token_count = static_cast<int32_t>(log.prompt.size());
    params.min_output_tokens = static_cast<int32_t>(random() % 30);
    const auto position =
        static_cast<int32_t>(log.prompt.size() + log.output.size());
    const int32_t token = Sample(logits, params, position, log.History());
    EXPECT_EQ(token, SampleSlowly(logits, params, position, log))
        << "round " << round;
    n_changed += token != Sample(logits, plain, position);
  }
  EXPECT_GT(n_changed, 100);
}

SamplerParams GreedyWith(float repetition, float frequency, float presence) {
  SamplerParams params = Greedy();
  params.repetition_penalty = repetition;
  params.frequency_penalty = frequency;
  params.presence_penalty = presence;
  return params;
}

TEST(Sampler, RepetitionCountsPromptAndOutputAlike) {
  const std::vector<float> logits = {4, 3, -1};
  const SamplerParams params = GreedyWith(2, 0, 0);
  EXPECT_EQ(Sample(logits, params), 0);
  EXPECT_EQ(Sample(logits, params, 1, Log{{0}, {}}.History()), 1);
  EXPECT_EQ(Sample(logits, params, 1, Log{{}, {0, 0}}.History()), 1);
  EXPECT_EQ(Sample(logits, params, 2, Log{{1}, {0}}.History()), 0);
  // A negative logit becomes smaller, not larger.
  EXPECT_EQ(Sample({-3, -2}, params, 1, Log{{1}, {}}.History()), 0);
}

TEST(Sampler, FrequencyAndPresenceCountTheOutputOnly) {
  const std::vector<float> logits = {4, 3, 0};
  EXPECT_EQ(Sample(logits, GreedyWith(1, 2, 2), 1, Log{{0, 0}, {}}.History()),
            0);
  EXPECT_EQ(Sample(logits, GreedyWith(1, 0.6f, 0), 1, Log{{}, {0}}.History()),
            0);
  EXPECT_EQ(
      Sample(logits, GreedyWith(1, 0.6f, 0), 2, Log{{}, {0, 0}}.History()), 1);
  EXPECT_EQ(
      Sample(logits, GreedyWith(1, 0, 0.6f), 2, Log{{}, {0, 0}}.History()), 0);
  EXPECT_EQ(Sample(logits, GreedyWith(1, 0, 1.5f), 1, Log{{}, {0}}.History()),
            1);
  EXPECT_EQ(Sample(logits, GreedyWith(1, 0, -2), 1, Log{{}, {1}}.History()), 1);
}

TEST(Sampler, BiasComesAfterThePenalties) {
  SamplerParams params = GreedyWith(4, 0, 0);
  params.logit_bias = {{0, 2}};
  // 8 / 4 + 2 = 4; had the bias come first it would be 2.5.
  EXPECT_EQ(Sample({8, 3}, params, 1, Log{{0}, {}}.History()), 0);
  params.logit_bias = {{1, -100}};
  EXPECT_EQ(Sample({1, 3}, params), 0);
}

TEST(Sampler, StopTokensAreNoCandidatesBelowTheMinimum) {
  for (const float temperature : {0.0f, 1.0f}) {
    for (const int32_t top_k : {0, 2}) {
      SamplerParams params;
      params.temperature = temperature;
      params.top_k = top_k;
      params.stop_token_ids = {1, 2};
      params.prompt_token_count = 10;
      params.min_output_tokens = 3;
      const std::vector<float> logits = {0, 60, 50, -70};
      for (int position = 10; position < 13; ++position) {
        EXPECT_EQ(Sample(logits, params, position), 0);
      }
      EXPECT_EQ(Sample(logits, params, 13), 1);
    }
  }
}

TEST(Sampler, WithoutAnyCandidateThereIsNoToken) {
  SamplerScratch scratch;
  for (const float temperature : {0.0f, 1.0f}) {
    SamplerParams params;
    params.temperature = temperature;
    params.stop_token_ids = {0, 1};
    params.min_output_tokens = 1;
    EXPECT_TRUE(absl::IsInvalidArgument(
        SampleToken({1, 2}, params, 0, &scratch).status()));
  }
}

// The page's text, with the scalar exponential.
float LogprobSlowly(const std::vector<float>& logits, int32_t id) {
  const float m = *std::max_element(logits.begin(), logits.end());
  uint64_t total = 0;
  for (const float logit : logits) {
    total += static_cast<uint64_t>(
        std::nearbyint(static_cast<double>(Exp(logit - m)) * 0x1p40));
  }
  const double value = static_cast<double>(logits[id]) -
                       static_cast<double>(m) -
                       LogDouble(static_cast<double>(total) * 0x1p-40);
  return static_cast<float>(std::fmax(value, -static_cast<double>(kMax)));
}

TEST(Logprobs, AreThoseOfTheSoftmax) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal(0, 5);
  for (const int n : {1, 2, 17, 511, 512, 513, 3000}) {
    std::vector<float> logits(n);
    for (float& logit : logits) logit = normal(random);
    if (n == 17) logits[3] = logits[9] = 20;  // a tie at the top
    const auto token = static_cast<int32_t>(random() % n);
    SamplerScratch scratch;
    const TokenLogprobs got = ComputeLogprobs(logits, token, 20, &scratch);
    EXPECT_EQ(got.logprob, LogprobSlowly(logits, token));
    double sum = 0;
    for (const float logit : logits) sum += std::exp(double{logit});
    EXPECT_NEAR(got.logprob, logits[token] - std::log(sum), 1e-5);

    std::vector<int32_t> order(n);
    for (int i = 0; i < n; ++i) order[i] = i;
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[a] > logits[b];
    });
    ASSERT_EQ(got.alternatives.size(), static_cast<size_t>(std::min(n, 20)));
    for (size_t i = 0; i < got.alternatives.size(); ++i) {
      EXPECT_EQ(got.alternatives[i].token_id, order[i]);
      EXPECT_EQ(got.alternatives[i].logprob, LogprobSlowly(logits, order[i]));
    }
    EXPECT_TRUE(
        ComputeLogprobs(logits, token, 0, &scratch).alternatives.empty());
  }
}

TEST(Logprobs, OfExtremeLogitsAreFinite) {
  SamplerScratch scratch;
  const TokenLogprobs got = ComputeLogprobs({kMax, -kMax}, 1, 1, &scratch);
  EXPECT_EQ(got.logprob, -kMax);
  EXPECT_EQ(got.alternatives[0].logprob, 0);
}

TEST(Logprobs, AreTheSameInEveryTable) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, 8);
  std::vector<float> logits(5000);
  for (float& logit : logits) logit = normal(random);
  SamplerScratch best, ref;
  ref.kernels = &KernelsFor(Isa::kRef);
  SamplerParams params;
  for (int32_t position = 0; position < 50; ++position) {
    EXPECT_EQ(*SampleToken(logits, params, position, &best),
              *SampleToken(logits, params, position, &ref));
    EXPECT_EQ(ComputeLogprobs(logits, position, 0, &best).logprob,
              ComputeLogprobs(logits, position, 0, &ref).logprob);
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
  EXPECT_EQ(Sample({-kMax, kMax, 0}, SamplerParams()), 1);
  EXPECT_EQ(Sample({kMax, -kMax}, Greedy()), 0);
}

}  // namespace
}  // namespace tern
