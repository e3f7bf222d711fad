#include "bench/workload.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "bench/lengths.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

WorkloadOptions Options() {
  return {"",
          /*vocab_size=*/1000,
          /*context_length=*/256, *Lengths::Parse("uniform:20-40"),
          *Lengths::Parse("uniform:1-9")};
}

TEST(Workload, TheSameNumberIsTheSameRequest) {
  const Workload first(Options());
  const Workload second(Options());
  for (const int64_t index : {5, 0, 5}) {
    const PlannedRequest a = first.Make(index);
    const PlannedRequest b = second.Make(index);
    EXPECT_EQ(a.prompt, b.prompt);
    EXPECT_EQ(a.output_tokens, b.output_tokens);
    EXPECT_EQ(a.sampling_seed, b.sampling_seed);
    EXPECT_EQ(a.cancel_at_tokens, 0);
  }
  WorkloadOptions other = Options();
  other.seed = 1;
  EXPECT_NE(Workload(other).Make(5).prompt, first.Make(5).prompt);
  EXPECT_NE(first.Make(6).prompt, first.Make(5).prompt);
}

TEST(Workload, KeepsToTheLengthsAndTheVocabulary) {
  const Workload workload(Options());
  for (int64_t i = 0; i < 200; ++i) {
    const PlannedRequest request = workload.Make(i);
    EXPECT_GE(request.prompt.size(), 20);
    EXPECT_LE(request.prompt.size(), 40);
    EXPECT_GE(request.output_tokens, 1);
    EXPECT_LE(request.output_tokens, 9);
    for (const int32_t token : request.prompt) {
      EXPECT_GE(token, 0);
      EXPECT_LT(token, 1000);
    }
  }
}

TEST(Workload, GroupsSharePrefixesAndNothingElse) {
  WorkloadOptions options = Options();
  options.shared_prefix_tokens = 16;
  options.prefix_groups = 3;
  const Workload workload(options);
  std::set<std::vector<int32_t>> prefixes;
  std::set<int32_t> first_own_tokens;
  for (int64_t i = 0; i < 100; ++i) {
    const std::vector<int32_t> prompt = workload.Make(i).prompt;
    prefixes.insert({prompt.begin(), prompt.begin() + 16});
    first_own_tokens.insert(prompt[16]);
  }
  EXPECT_EQ(prefixes.size(), 3);
  EXPECT_GT(first_own_tokens.size(), 50);
}

TEST(Workload, APromptIsLongerThanItsPrefix) {
  WorkloadOptions options = Options();
  options.shared_prefix_tokens = 39;
  const Workload workload(options);
  for (int64_t i = 0; i < 20; ++i) {
    EXPECT_EQ(workload.Make(i).prompt.size(), 40);
  }
}

TEST(Workload, CancelsTheShareAsked) {
  WorkloadOptions options = Options();
  options.cancel_share = 0.25;
  const Workload workload(options);
  int n_cancelled = 0;
  for (int64_t i = 0; i < 1000; ++i) {
    const PlannedRequest request = workload.Make(i);
    if (request.cancel_at_tokens == 0) continue;
    ++n_cancelled;
    EXPECT_LE(request.cancel_at_tokens, std::max(1, request.output_tokens - 1));
  }
  EXPECT_NEAR(n_cancelled, 250, 70);  // five deviations
}

TEST(Workload, RefusesWhatCannotBe) {
  EXPECT_TRUE(Workload::Check(Options()).ok());
  WorkloadOptions options = Options();
  options.shared_prefix_tokens = 40;
  EXPECT_TRUE(absl::IsInvalidArgument(Workload::Check(options)));
  options = Options();
  options.prefix_groups = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(Workload::Check(options)));
  options = Options();
  options.context_length = 40;
  EXPECT_TRUE(absl::IsInvalidArgument(Workload::Check(options)));
  options = Options();
  options.cancel_share = 1.5;
  EXPECT_TRUE(absl::IsInvalidArgument(Workload::Check(options)));
}

}  // namespace
}  // namespace tern
