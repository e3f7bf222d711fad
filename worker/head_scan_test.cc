#include "worker/head_scan.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/quantize.h"
#include "worker/sampler.h"
#include "worker/stage_profile.h"
#include "worker/thread_pool.h"
#include "worker/wanted_logits.h"

namespace tern {
namespace {

constexpr int kColumns = 64;
constexpr float kLowest = std::numeric_limits<float>::lowest();

using Row = std::vector<int8_t>;

// A head of given rows in mode int8. Aligned as kernels want it.
struct Head {
  Head(const std::vector<Row>& rows, const std::vector<float>& row_scales)
      : upper_bytes(64 + Int8PlaneBytes(rows.size(), kColumns)),
        lower_bytes(upper_bytes.size()),
        scale(size_t{kHeadPanelRows} * HeadPanelCount(rows.size())),
        norm(scale.size()) {
    uint8_t* const upper = Aligned(&upper_bytes);
    uint8_t* const lower = Aligned(&lower_bytes);
    for (size_t i = 0; i < scale.size(); ++i) {
      const size_t at = i / kHeadPanelRows * HeadPanelBytes(kColumns);
      const Row row = i < rows.size() ? rows[i] : Row(kColumns);
      norm[i] = PlaceInt8Row(row.data(), kColumns, i % kHeadPanelRows,
                             upper + at, lower + at);
      scale[i] = i < rows.size() ? row_scales[i] : 0.0f;
    }
    view = {upper,
            lower,
            scale.data(),
            norm.data(),
            static_cast<int>(rows.size()),
            kColumns};
  }
  Head(const Head&) = delete;

  static uint8_t* Aligned(std::vector<uint8_t>* bytes) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(bytes->data());
    return bytes->data() + (64 - at % 64) % 64;
  }

  std::vector<uint8_t> upper_bytes;
  std::vector<uint8_t> lower_bytes;
  std::vector<float> scale;
  std::vector<float> norm;
  Int8View view;
};

struct Tokens {
  explicit Tokens(const std::vector<Row>& rows, float scale = 9.0f) {
    for (const Row& row : rows) {
      q.insert(q.end(), row.begin(), row.end());
      s.push_back(scale);
      int32_t total = 0;
      for (const int8_t v : row) total += v;
      sum.push_back(total);
    }
    view = {q.data(), s.data(), sum.data(), static_cast<int>(rows.size()),
            kColumns};
  }
  Tokens(const Tokens&) = delete;
  std::vector<int8_t> q;
  std::vector<float> s;
  std::vector<int32_t> sum;
  QuantizedTokens view;
};

Row RandomRow(std::mt19937* rng) {
  Row row(kColumns);
  for (int8_t& v : row) {
    v = static_cast<int8_t>(static_cast<int>((*rng)() % 255) - 127);
  }
  return row;
}

// Heads in which the highest logits are easy, hard or impossible to tell from
// the others by their upper halves; 533 rows fill no group at the end.
struct Case {
  const char* name;
  std::vector<Row> rows;
  std::vector<float> scales;
};

std::vector<Case> Cases(const std::vector<Row>& tokens) {
  constexpr int kRows = 533;
  std::mt19937 rng(3);
  const std::vector<float> ones(kRows, 0.01f);
  std::vector<Row> random(kRows);
  for (Row& row : random) row = RandomRow(&rng);

  std::vector<Case> cases = {{"random", random, ones}};
  Case spread = {"spread", random, ones};
  for (float& scale : spread.scales) {
    scale *= std::exp(static_cast<float>(rng() % 1000) * -0.01f);
  }
  cases.push_back(spread);

  // Rows in the directions of the tokens, many of them twice: ties.
  Case directed = {"directed", random, ones};
  for (int i = 0; i < 40; ++i) {
    Row row = tokens[i % tokens.size()];
    row[i / 8] = static_cast<int8_t>(row[i / 8] / 2);
    directed.rows[rng() % kRows] = row;
    directed.rows[rng() % kRows] = row;
  }
  cases.push_back(directed);
  Case tail = {"tail", random, ones};
  tail.rows.back() = tokens[0];
  cases.push_back(tail);

  cases.push_back({"equal", std::vector<Row>(kRows, random[0]), ones});
  cases.push_back({"zeros", std::vector<Row>(kRows, Row(kColumns)),
                   std::vector<float>(kRows)});
  Case negative = {"negative", std::vector<Row>(kRows, tokens[0]), ones};
  for (Row& row : negative.rows) {
    for (int8_t& v : row) v = static_cast<int8_t>(-v);
    row[rng() % kColumns] = 0;
  }
  cases.push_back(negative);
  // Differences that the lower halves alone tell.
  Case close = {"close", std::vector<Row>(kRows, Row(kColumns, 32)), ones};
  for (Row& row : close.rows) row[rng() % kColumns] = 32 + rng() % 16;
  cases.push_back(close);
  Case saturated = {"saturated", std::vector<Row>(kRows), ones};
  for (Row& row : saturated.rows) {
    row.assign(kColumns, rng() % 2 == 0 ? 127 : -127);
  }
  cases.push_back(saturated);
  return cases;
}

std::vector<SamplerParams> Params() {
  std::vector<SamplerParams> all;
  SamplerParams params;
  params.temperature = 0;
  all.push_back(params);
  params.min_output_tokens = 5;
  params.stop_token_ids = {1, 3, 500, 532};
  all.push_back(params);
  for (const int top_k : {1, 2, 40, 64, 65, 200, 0}) {
    for (const float temperature : {1e-42f, 0.7f, 1.0f, 100.0f}) {
      params = {};
      params.top_k = top_k;
      params.temperature = temperature;
      params.top_p = top_k == 40 ? 0.9f : 1.0f;
      params.seed = top_k;
      all.push_back(params);
      params.min_p = 0.05f;
      params.min_output_tokens = 5;
      params.stop_token_ids = {0, 7, 300};
      all.push_back(params);
    }
  }
  return all;
}

class HeadScanTest : public ::testing::TestWithParam<Isa> {
 protected:
  HeadScanTest() : pool_(2) {
    std::mt19937 rng(1);
    for (int t = 0; t < 5; ++t) token_rows_.push_back(RandomRow(&rng));
    token_rows_[2].assign(kColumns, 0);
    token_rows_[3].assign(kColumns, 127);
  }

  std::vector<float> All(const Head& head, const Tokens& x) {
    std::vector<float> logits(x.view.n_tokens * Stride(head));
    KernelsFor(Isa::kRef).head_int8(head.view, x.view, 0, head.view.n_rows,
                                    logits.data(), Stride(head));
    return logits;
  }
  static size_t Stride(const Head& head) { return head.scale.size(); }

  ThreadPool pool_;
  std::vector<Row> token_rows_;
};

// The promise: the same tokens as from all logits, and what is left out is
// below the k highest.
TEST_P(HeadScanTest, SamplersSeeNoDifference) {
  int n_left_out = 0;
  for (const Case& c : Cases(token_rows_)) {
    const Head head(c.rows, c.scales);
    const std::vector<float> all = All(head, Tokens(token_rows_));
    for (const SamplerParams& params : Params()) {
      SCOPED_TRACE(std::string(c.name) + ", top_k " +
                   std::to_string(params.top_k) + ", temperature " +
                   std::to_string(params.temperature) + ", minimum " +
                   std::to_string(params.min_output_tokens));
      // Two passes take up to four tokens.
      for (const size_t n_tokens : {1, 4, 5}) {
        const Tokens x({token_rows_.begin(), token_rows_.begin() + n_tokens});
        // A new one, which has not learnt yet that two passes do not pay.
        HeadScan scan(head.view, &pool_, &KernelsFor(GetParam()));
        ASSERT_EQ(scan.stride(), Stride(head));
        const WantedLogits wanted = LogitsWantedBy(params, 3);
        std::vector<float> logits(n_tokens * Stride(head), -1.0f);
        scan.Compute(x.view, std::vector<WantedLogits>(n_tokens, wanted),
                     logits.data(), nullptr);
        for (size_t t = 0; t < n_tokens; ++t) {
          const float* const first = &all[t * Stride(head)];
          const std::vector<float> expected(first, first + c.rows.size());
          const float* const begin = &logits[t * Stride(head)];
          const std::vector<float> actual(begin, begin + c.rows.size());
          SamplerScratch scratch;
          const auto token = SampleToken(expected, params, 3, &scratch);
          ASSERT_TRUE(token.ok()) << token.status();
          const auto same = SampleToken(actual, params, 3, &scratch);
          ASSERT_TRUE(same.ok()) << same.status();
          ASSERT_EQ(*token, *same) << "token " << t << " of " << n_tokens;

          std::vector<float> z;
          for (const float logit : expected) {
            z.push_back(ScaledLogit(logit, params.temperature));
          }
          std::vector<float> sorted = z;
          std::sort(sorted.begin(), sorted.end(), std::greater<float>());
          for (size_t row = 0; row < z.size(); ++row) {
            if (actual[row] == expected[row]) continue;
            ++n_left_out;
            ASSERT_EQ(actual[row], kLowest);
            ASSERT_GE(wanted.top_k, 1);
            ASSERT_LT(z[row], sorted[wanted.top_k - 1]) << "row " << row;
          }
        }
      }
    }
  }
  // Or the test shows nothing.
  EXPECT_GT(n_left_out, 30000);
}

// Where l - 7.5 is parallel to x, a logit is as high as its bound; another row
// has the next lower sum, and a higher bound.
TEST_P(HeadScanTest, ALogitThatReachesItsBoundIsFound) {
  constexpr int kHighest = 100;
  constexpr int kSecond = 300;
  std::vector<Row> rows(533, Row(kColumns, -16));
  rows[kHighest].assign(kColumns, 15);
  for (int k = 0; k < kColumns; ++k) {
    rows[kSecond][k] =
        (k < 29 ? 16 : 0) + (k < 47 ? 8 : 7);  // 959 in all, not 960
  }
  const Head head(rows, std::vector<float>(rows.size(), 0.01f));
  const Tokens x({Row(kColumns, 127)});
  HeadScan scan(head.view, &pool_, &KernelsFor(GetParam()));
  std::vector<float> logits(Stride(head));
  scan.Compute(x.view, {{1, 0.0f}}, logits.data(), nullptr);
  const std::vector<float> all = All(head, x);
  ASSERT_GT(all[kHighest], all[kSecond]);
  EXPECT_EQ(logits[kHighest], all[kHighest]);
  EXPECT_EQ(logits[0], kLowest);  // two passes, or the test shows nothing
}

TEST_P(HeadScanTest, WhatAnotherTokenWantsMakesNoDifference) {
  const Case spread = Cases(token_rows_)[1];
  const Head head(spread.rows, spread.scales);
  const Tokens x({token_rows_.begin(), token_rows_.begin() + 3});
  HeadScan scan(head.view, &pool_, &KernelsFor(GetParam()));
  const std::vector<float> all = All(head, x);
  std::vector<float> logits(all.size());
  // One that wants all makes them all be computed.
  scan.Compute(x.view, {{1, 0.0f}, {}, {2, 1.0f}}, logits.data(), nullptr);
  for (int t = 0; t < 3; ++t) {
    for (size_t row = 0; row < spread.rows.size(); ++row) {
      ASSERT_EQ(logits[t * Stride(head) + row], all[t * Stride(head) + row]);
    }
  }
}

TEST_P(HeadScanTest, TwoPassesAreTriedLessOftenWhereTheyDoNotPay) {
  const Head head(std::vector<Row>(533, token_rows_[0]),
                  std::vector<float>(533, 1.0f));
  const Tokens x({token_rows_[0]});
  HeadScan scan(head.view, &pool_, &KernelsFor(GetParam()));
  std::vector<float> logits(Stride(head));
  std::vector<int> tries;
  for (int i = 0; i < 200; ++i) {
    StageProfile profile;
    scan.Compute(x.view, {{1, 0.0f}}, logits.data(), &profile);
    if (profile.head_candidate_share() > 0) tries.push_back(i);
    ASSERT_EQ(logits[532], logits[0]);
  }
  EXPECT_EQ(tries, (std::vector<int>{0, 2, 5, 10, 19, 36, 69, 134, 199}));
}

// Infinite logits are an error that the sampler must see.
TEST_P(HeadScanTest, InfiniteLogitsAreNotLeftOut) {
  Case spread = Cases(token_rows_)[1];
  spread.rows[77] = token_rows_[0];
  for (int8_t& v : spread.rows[77]) v = static_cast<int8_t>(-v);
  spread.scales[77] = 1e37f;
  const Head head(spread.rows, spread.scales);
  const Tokens x({token_rows_[0]});
  HeadScan scan(head.view, &pool_, &KernelsFor(GetParam()));
  std::vector<float> logits(Stride(head));
  scan.Compute(x.view, {{1, 0.0f}}, logits.data(), nullptr);
  EXPECT_EQ(logits[77], -std::numeric_limits<float>::infinity());
}

INSTANTIATE_TEST_SUITE_P(Isas, HeadScanTest,
                         ::testing::ValuesIn(SupportedIsas()),
                         [](const ::testing::TestParamInfo<Isa>& info) {
                           return std::string(IsaName(info.param));
                         });

}  // namespace
}  // namespace tern
