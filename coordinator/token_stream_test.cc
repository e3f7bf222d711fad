#include "coordinator/token_stream.h"

#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

TokenStream::Taken TakeFrom(TokenStream* stream) {
  TokenStream::Taken taken;
  stream->Take(&taken);
  return taken;
}

TEST(TokenStream, JoinsWhatASlowReaderHasNotTaken) {
  int n_wakes = 0;
  TokenStream stream([&n_wakes] { ++n_wakes; });
  stream.Admit("cpu-1/int8");
  for (int32_t token = 0; token < 1000; ++token) stream.Push(token);
  EXPECT_EQ(n_wakes, 1);
  TokenStream::Taken taken = TakeFrom(&stream);
  EXPECT_TRUE(taken.admitted);
  EXPECT_EQ(taken.tokens.size(), 1000u);
  EXPECT_FALSE(taken.end.has_value());
  stream.Push(7);
  EXPECT_EQ(n_wakes, 2);
  stream.Take(&taken);  // over what was there
  EXPECT_TRUE(taken.admitted);
  EXPECT_EQ(taken.numerics_id, "cpu-1/int8");
  EXPECT_EQ(taken.tokens, std::vector<int32_t>{7});
}

TEST(TokenStream, AChangeOfArithmeticKeepsItsPlace) {
  TokenStream stream([] {});
  stream.Push(1);
  stream.ChangeNumerics("cpu-1/stored");
  stream.Push(2);
  TokenStream other([] {});
  other.Push(0);
  other.PushAll(TakeFrom(&stream));
  const TokenStream::Taken taken = TakeFrom(&other);
  EXPECT_EQ(taken.tokens, (std::vector<int32_t>{0, 1, 2}));
  ASSERT_EQ(taken.numerics_changes.size(), 1u);
  EXPECT_EQ(taken.numerics_changes[0].n_tokens, 2);
  EXPECT_EQ(taken.numerics_changes[0].numerics_id, "cpu-1/stored");
  EXPECT_TRUE(TakeFrom(&other).numerics_changes.empty());
}

TEST(TokenStream, LastTokenAndEndComeTogetherAndOnce) {
  TokenStream stream([] {});
  stream.PushAndEnd(3, {absl::OkStatus(), FinishReason::kLength, -1});
  TokenStream::Taken taken = TakeFrom(&stream);
  EXPECT_EQ(taken.tokens, std::vector<int32_t>{3});
  ASSERT_TRUE(taken.end.has_value());
  EXPECT_EQ(taken.end->reason, FinishReason::kLength);
  EXPECT_FALSE(TakeFrom(&stream).end.has_value());
}

TEST(TokenStream, LogprobsKeepStepWithTheTokens) {
  TokenStream stream([] {});
  TokenLogprobs logprobs;
  logprobs.logprob = -1;
  stream.Push(3, logprobs);
  logprobs.logprob = -2;
  logprobs.alternatives = {{4, -0.5f}};
  stream.PushAndEnd(5, {}, logprobs);
  const TokenStream::Taken taken = TakeFrom(&stream);
  EXPECT_EQ(taken.tokens, (std::vector<int32_t>{3, 5}));
  ASSERT_EQ(taken.logprobs.size(), 2u);
  EXPECT_EQ(taken.logprobs[0].logprob, -1);
  EXPECT_EQ(taken.logprobs[1].logprob, -2);
  EXPECT_EQ(taken.logprobs[1].alternatives.size(), 1u);
}

TEST(TokenStream, JoinsWhatWasThoughtOfThePrompt) {
  int n_wakes = 0;
  TokenStream stream([&n_wakes] { ++n_wakes; });
  stream.PushPrompt({{-1, {}}, {-2, {{4, -0.5f}}}});
  stream.PushPrompt({{-3, {}}});
  stream.Push(3);
  EXPECT_EQ(n_wakes, 1);
  TokenStream::Taken taken;
  stream.Take(&taken);
  ASSERT_EQ(taken.prompt_logprobs.size(), 3u);
  EXPECT_EQ(taken.prompt_logprobs[1].alternatives.size(), 1u);
  EXPECT_EQ(taken.prompt_logprobs[2].logprob, -3);
  EXPECT_EQ(taken.tokens, std::vector<int32_t>{3});
  stream.Take(&taken);
  EXPECT_TRUE(taken.prompt_logprobs.empty());
}

TEST(TokenStream, RefusedRequestsEndWithoutAdmission) {
  TokenStream stream([] {});
  stream.End({absl::UnavailableError("no workers")});
  const TokenStream::Taken taken = TakeFrom(&stream);
  EXPECT_FALSE(taken.admitted);
  EXPECT_EQ(taken.end->status.code(), absl::StatusCode::kUnavailable);
}

TEST(TokenStreamDeathTest, NothingComesAfterTheEnd) {
  TokenStream stream([] {});
  stream.End({});
  TakeFrom(&stream);
  EXPECT_DEATH(stream.Push(1), "after its end");
}

}  // namespace
}  // namespace tern
