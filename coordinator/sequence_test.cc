#include "coordinator/sequence.h"

#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

SequenceParameters Parameters(int max_output_tokens) {
  SequenceParameters parameters;
  parameters.prompt = {5, 6, 7};
  parameters.max_output_tokens = max_output_tokens;
  parameters.stop_token_ids = {2, 9};
  return parameters;
}

TEST(Sequence, LogIsPromptThenOutput) {
  Sequence sequence(1, Parameters(4));
  EXPECT_FALSE(sequence.Append(8).ended);
  EXPECT_EQ(sequence.tokens, (std::vector<int32_t>{5, 6, 7, 8}));
  EXPECT_EQ(sequence.n_output(), 1);
  EXPECT_EQ(sequence.n_pending(), 4);
}

TEST(Sequence, StopTokenEndsItEvenInThePromptsVocabulary) {
  Sequence sequence(1, Parameters(4));
  const Sequence::Ending ending = sequence.Append(9);
  EXPECT_TRUE(ending.ended);
  EXPECT_EQ(ending.reason, FinishReason::kStop);
  EXPECT_EQ(ending.stop_token_id, 9);
}

TEST(Sequence, StopTokenCountsBeforeTheLength) {
  Sequence sequence(1, Parameters(1));
  EXPECT_EQ(sequence.Append(2).reason, FinishReason::kStop);
}

TEST(Sequence, NoStopTokenEndsItBelowItsMinimum) {
  SequenceParameters parameters = Parameters(4);
  parameters.min_output_tokens = 2;
  Sequence sequence(1, parameters);
  EXPECT_FALSE(sequence.Append(2).ended);
  EXPECT_FALSE(sequence.Append(9).ended);
  EXPECT_EQ(sequence.Append(2).reason, FinishReason::kStop);
}

TEST(Sequence, EndsWithItsLastToken) {
  Sequence sequence(1, Parameters(2));
  EXPECT_FALSE(sequence.Append(8).ended);
  const Sequence::Ending ending = sequence.Append(8);
  EXPECT_TRUE(ending.ended);
  EXPECT_EQ(ending.reason, FinishReason::kLength);
  EXPECT_EQ(ending.stop_token_id, -1);
}

TEST(Sequence, RanksByClassThenPriorityThenArrival) {
  SequenceParameters batch = Parameters(1);
  batch.sequence_class = SequenceClass::kBatch;
  batch.priority = 100;
  SequenceParameters urgent = Parameters(1);
  urgent.priority = 1;
  const Sequence a(1, batch), b(2, Parameters(1)), c(3, Parameters(1)),
      d(4, urgent);
  EXPECT_LT(d.rank(), b.rank());
  EXPECT_LT(b.rank(), c.rank());
  EXPECT_LT(c.rank(), a.rank());
}

}  // namespace
}  // namespace tern
