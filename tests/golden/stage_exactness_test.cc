// The first promise (docs/exactness.md): the same tokens, and the same logits
// bit for bit, whatever the cut into stages, the chunking of prompts, the
// company in the batch, the threads, the instruction set, the packing of the
// weights, and whether a sequence was decoded or replayed.

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "kernels/head.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"
#include "kernels/ternary_layout.h"
#include "model/model_source.h"
#include "tests/golden/local_pipeline.h"
#include "tests/testing/tiny_model.h"
#include "util/crc32c.h"
#include "util/logging.h"
#include "worker/philox.h"

namespace tern {
namespace testing {
namespace {

constexpr int kWholePrompt = std::numeric_limits<int>::max();
constexpr int kTokens = 12;
constexpr int kShortPrompts = 3;  // the first of Requests()

// Odd on purpose: no power of two, a vocabulary that fills no panel, three
// query heads to a key.
TinyModelOptions ModelOptions() {
  TinyModelOptions options;
  options.n_layers = 5;
  options.hidden_size = 96;
  options.ffn_size = 176;
  options.n_heads = 6;
  options.n_kv_heads = 2;
  options.head_dim = 16;
  options.vocab_size = 331;
  options.context_length = 192;
  options.seed = 20;
  return options;
}

// Prompts around the sizes of blocks (16), attention chunks (64) and tiles
// (256 together), and every kind of sampling.
std::vector<GoldenRequest> Requests() {
  std::vector<GoldenRequest> requests;
  for (const int length : {1, 5, 16, 63, 64, 65, 150}) {
    GoldenRequest request;
    const uint64_t index = requests.size();
    for (int i = 0; i < length; ++i) {
      const uint64_t word =
          Philox4x64({static_cast<uint64_t>(i), index, 0, 0}, {1, 2})[0];
      request.prompt.push_back(static_cast<int32_t>(word % 331));
    }
    request.n_tokens = kTokens;
    request.sampler.seed = 1000 + index;
    requests.push_back(std::move(request));
  }
  requests[0].sampler.temperature = 0;
  requests[1].sampler.top_k = 20;
  requests[2].sampler.top_p = 0.8f;
  requests[3].sampler.min_p = 0.1f;
  requests[4].sampler.temperature = 0;
  requests[5].sampler = {0.7f, 50, 0.9f, 0.02f, 7, 1};
  return requests;
}

// What all of them must give: one stage, one thread, the oracle's kernels, each
// sequence alone with its prompt in one piece.
class StageExactnessTest : public ::testing::Test {
 protected:
  static const std::vector<GoldenAnswer>& Expected(HeadMode mode) {
    static auto* const answers =
        new std::map<HeadMode, std::vector<GoldenAnswer>>;
    std::vector<GoldenAnswer>& expected = (*answers)[mode];
    if (expected.empty()) {
      LocalPipeline pipeline(Stages(mode, 1), Isa::kRef, 1);
      expected = Generate(&pipeline, Requests(), kWholePrompt, 1,
                          LogitsComputed::kAll);
    }
    return expected;
  }

  static const StageWeightsList& Stages(
      HeadMode mode, int n_stages,
      TernaryPacking packing = TernaryPacking::k2Bit) {
    static auto* const source =
        new std::shared_ptr<const ModelSource>(Source());
    static auto* const stages =
        new std::map<std::tuple<HeadMode, int, TernaryPacking>,
                     StageWeightsList>;
    StageWeightsList& list = (*stages)[{mode, n_stages, packing}];
    if (list.empty()) list = LoadStages(*source, n_stages, mode, packing);
    return list;
  }

 private:
  static std::shared_ptr<const ModelSource> Source() {
    static const Bytes* const bytes = new Bytes(TinyModelBytes(ModelOptions()));
    auto source = ModelSource::FromGguf(*bytes);
    CHECK(source.ok()) << source.status().ToString();
    return std::move(source).value();
  }
};

// Under a sanitizer, which looks for other mistakes, the oracle takes minutes
// for each cut.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

// Every cut with every number of threads and every instruction set; one cut
// with sets that differ from AVX2 by two kernels, and with every other packing
// that a set has.
struct Split {
  HeadMode head_mode;
  Isa isa;
  int n_stages;
  int n_threads;
  TernaryPacking packing;
};

std::vector<Split> Splits() {
  std::vector<Split> splits;
  for (const HeadMode mode : {HeadMode::kStored, HeadMode::kInt8}) {
    for (const Isa isa : SupportedIsas()) {
      for (const int n_stages : {1, 2, 3, 4}) {
        for (const int n_threads : {1, 2}) {
          if (kSanitized && isa == Isa::kRef && n_stages != 2) continue;
          const bool is_nearly_avx2 =
              isa == Isa::kAvxVnni || isa == Isa::kAvx512Vnni256;
          if (is_nearly_avx2 && n_stages != 3) continue;
          splits.push_back(
              {mode, isa, n_stages, n_threads, TernaryPacking::k2Bit});
        }
      }
    }
  }
  for (const Isa isa : SupportedIsas()) {
    // The oracle, which takes its time, meets them in the tests of the kernels.
    if (isa == Isa::kRef) continue;
    for (const TernaryPacking packing : kAllTernaryPackings) {
      if (packing == TernaryPacking::k2Bit) continue;
      if (!KernelsFor(isa).has_packing(packing)) continue;
      splits.push_back({HeadMode::kInt8, isa, 2, 2, packing});
    }
  }
  return splits;
}

std::string SplitName(const ::testing::TestParamInfo<Split>& info) {
  const Split& split = info.param;
  return absl::StrCat(HeadModeName(split.head_mode), "_", IsaName(split.isa),
                      "_", split.n_stages, "stages_", split.n_threads,
                      "threads_", TernaryPackingName(split.packing));
}

// The token log as a prompt, as after pre-emption, failover or resumption.
GoldenRequest Replay(GoldenRequest request, const GoldenAnswer& answer,
                     int n_before) {
  request.prompt.insert(request.prompt.end(), answer.tokens.begin(),
                        answer.tokens.begin() + n_before);
  request.n_tokens -= n_before;
  return request;
}

GoldenAnswer Rest(const GoldenAnswer& whole, int n_before) {
  GoldenAnswer rest;
  rest.tokens.assign(whole.tokens.begin() + n_before, whole.tokens.end());
  rest.logits.assign(whole.logits.begin() + n_before, whole.logits.end());
  return rest;
}

class SplitExactnessTest : public StageExactnessTest,
                           public ::testing::WithParamInterface<Split> {};

// Fresh sequences and replayed ones, alone and in each other's company.
TEST_P(SplitExactnessTest, GivesTheSameTokensAndLogits) {
  const Split& split = GetParam();
  const std::vector<GoldenAnswer>& whole = Expected(split.head_mode);
  std::vector<GoldenRequest> requests = Requests();
  // The oracle is slow: it gets the short prompts, which grow over a block.
  if (split.isa == Isa::kRef) requests.resize(kShortPrompts);
  const size_t n_fresh = requests.size();
  std::vector<GoldenAnswer> expected(whole.begin(), whole.begin() + n_fresh);
  for (size_t i = 0; i < n_fresh; ++i) {
    const int n_before = std::vector<int>{1, 6, kTokens - 1}[i % 3];
    requests.push_back(Replay(requests[i], whole[i], n_before));
    expected.push_back(Rest(whole[i], n_before));
  }
  LocalPipeline pipeline(Stages(split.head_mode, split.n_stages, split.packing),
                         split.isa, split.n_threads);
  for (const int chunk : {1, 3, 64, kWholePrompt}) {
    for (const int batch : {1, 7}) {
      SCOPED_TRACE(absl::StrCat("chunks of ", chunk, ", batches of ", batch));
      const std::vector<GoldenAnswer> answers =
          Generate(&pipeline, requests, chunk, batch, LogitsComputed::kAll);
      ASSERT_EQ(answers.size(), expected.size());
      for (size_t i = 0; i < answers.size(); ++i) {
        EXPECT_EQ(answers[i].tokens, expected[i].tokens) << "sequence " << i;
        EXPECT_TRUE(SameBits(answers[i], expected[i])) << "sequence " << i;
      }
    }
  }
}

// Which logits are computed depends on the company in the batch, and on what
// the steps before taught about it; the tokens do not.
TEST_F(StageExactnessTest, WantedLogitsGiveTheSameTokens) {
  const std::vector<GoldenAnswer>& whole = Expected(HeadMode::kInt8);
  const std::vector<GoldenRequest> requests = Requests();
  for (const Isa isa : SupportedIsas()) {
    if (isa == Isa::kRef) continue;
    LocalPipeline pipeline(Stages(HeadMode::kInt8, 2), isa, 2);
    for (const int batch : {1, 3, 7}) {
      const std::vector<GoldenAnswer> answers = Generate(
          &pipeline, requests, kWholePrompt, batch, LogitsComputed::kWanted);
      bool any_left_out = false;
      for (size_t i = 0; i < answers.size(); ++i) {
        EXPECT_EQ(answers[i].tokens, whole[i].tokens)
            << IsaName(isa) << ", batch " << batch << ", sequence " << i;
        any_left_out |= !SameBits(answers[i], whole[i]);
      }
      // Or the test shows nothing.
      EXPECT_TRUE(any_left_out || batch > 1) << IsaName(isa);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, SplitExactnessTest, ::testing::ValuesIn(Splits()),
                         SplitName);

class HeadExactnessTest : public StageExactnessTest,
                          public ::testing::WithParamInterface<HeadMode> {};

TEST_P(HeadExactnessTest, DecodingAndReplayingLeaveTheSameKvBytes) {
  for (const Isa isa : SupportedIsas()) {
    LocalPipeline pipeline(Stages(GetParam(), 2), isa, 2);
    const std::vector<int32_t> tokens = Requests()[5].prompt;
    const int n = static_cast<int>(tokens.size());
    pipeline.Open(1);
    for (int i = 0; i < n; ++i) {
      pipeline.Step({{1, i, {tokens[i]}, false}});
    }
    pipeline.Open(2);
    pipeline.Step({{2, 0, tokens, false}});
    EXPECT_EQ(pipeline.KvOf(1, n), pipeline.KvOf(2, n)) << IsaName(isa);
  }
}

constexpr char kStoredTokens[] =
    R"(59 199 199 199 199 119 119 119 119 119 119 119
204 25 25 232 223 49 224 319 203 285 204 56
69 81 317 135 12 249 180 65 328 97 97 265
59 283 328 44 283 302 226 74 2 121 156 22
227 81 319 80 80 22 291 79 164 79 133 288
41 280 30 196 264 106 306 81 191 291 319 173
319 38 97 138 114 224 171 92 71 34 34 34
)";
constexpr char kInt8Tokens[] = R"(59 199 199 199 199 119 119 119 119 119 119 119
200 49 81 122 224 224 224 259 143 143 143 49
69 81 317 135 12 249 180 69 305 9 264 302
59 283 328 44 283 302 226 74 2 121 156 22
227 81 319 80 80 22 291 79 164 79 133 288
41 280 30 196 264 106 306 81 191 291 319 173
319 38 97 138 114 224 171 92 73 25 70 8
)";

// Made by the oracle's kernels. Whoever has to change these numbers has changed
// the arithmetic: that is another numerics class.
TEST_P(HeadExactnessTest, TheArithmeticIsTheCommittedOne) {
  const bool is_int8 = GetParam() == HeadMode::kInt8;
  std::string tokens;
  uint32_t crc = 0;
  for (const GoldenAnswer& answer : Expected(GetParam())) {
    absl::StrAppend(&tokens, absl::StrJoin(answer.tokens, " "), "\n");
    for (const std::vector<float>& logits : answer.logits) {
      crc = Crc32c(logits.data(), logits.size() * sizeof(float), crc);
    }
  }
  EXPECT_EQ(crc, is_int8 ? 1281721252u : 1560051482u);
  EXPECT_EQ(tokens, is_int8 ? kInt8Tokens : kStoredTokens);
}

INSTANTIATE_TEST_SUITE_P(HeadModes, HeadExactnessTest,
                         ::testing::Values(HeadMode::kStored, HeadMode::kInt8),
                         [](const ::testing::TestParamInfo<HeadMode>& info) {
                           return std::string(HeadModeName(info.param));
                         });

}  // namespace
}  // namespace testing
}  // namespace tern
