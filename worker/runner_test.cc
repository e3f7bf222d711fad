// What a runner makes of plans.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "worker/runner_fixture.h"
#include "worker/sampler.h"
#include "worker/step.h"
#include "worker/step_mailbox.h"

namespace tern {
namespace {

class RunnerTest : public RunnerFixture {};

// A text of the model's tokens.
std::vector<int32_t> Text(int n, int first) {
  std::vector<int32_t> text(n);
  for (int i = 0; i < n; ++i) text[i] = (first + i * i) % 50;
  return text;
}

void ExpectSame(const TokenLogprobs& actual, const TokenLogprobs& expected,
                size_t i) {
  EXPECT_EQ(actual.logprob, expected.logprob) << "token " << i;
  ASSERT_EQ(actual.alternatives.size(), expected.alternatives.size());
  for (size_t k = 0; k < actual.alternatives.size(); ++k) {
    EXPECT_EQ(actual.alternatives[k].token_id,
              expected.alternatives[k].token_id);
    EXPECT_EQ(actual.alternatives[k].logprob, expected.alternatives[k].logprob);
  }
}

TEST_F(RunnerTest, ReleasesThenOpensThenRuns) {
  Start(true, true);
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1, 2, 3}, {4})}});
  // Sequence 1 gives its block to sequence 2 within one plan.
  Push({2, {1}, {{2, {}}}, {Row(2, 0, {1, 2, 3}, {4})}});
  const StepResult first = sink_->WaitForResult(0);
  const StepResult second = sink_->WaitForResult(1);
  ASSERT_EQ(first.sampled.size(), 1u);
  ASSERT_EQ(second.sampled.size(), 1u);
  EXPECT_EQ(first.sampled[0].sequence_id, 1);
  EXPECT_EQ(second.sampled[0].sequence_id, 2);
  EXPECT_EQ(first.sampled[0].position, 3);
  EXPECT_EQ(first.sampled[0].token_id, second.sampled[0].token_id);
  EXPECT_EQ(second.blocks_in_use, 1);
  Push({3, {2}, {}, {}});
  const StepResult third = sink_->WaitForResult(2);
  EXPECT_EQ(third.step_id, 3);
  EXPECT_EQ(third.blocks_in_use, 0);
  mailbox_->End();
  EXPECT_TRUE(sink_->WaitForEnd().ok());
  EXPECT_EQ(finished_steps_, 3);
}

TEST_F(RunnerTest, OnlySamplingRowsAreSampledInTheirOrder) {
  Start(true, true);
  Push({1,
        {},
        {{1, {}}, {2, {}}, {3, {}}},
        {Row(3, 0, {1}, {0}), Row(1, 0, {1, 2}, {1}, false),
         Row(2, 0, {5, 6}, {2})}});
  const StepResult result = sink_->WaitForResult(0);
  ASSERT_EQ(result.sampled.size(), 2u);
  EXPECT_EQ(result.sampled[0].sequence_id, 3);
  EXPECT_EQ(result.sampled[1].sequence_id, 2);
}

TEST_F(RunnerTest, ManyRowsSampleAsEachAlone) {
  Start(true, true);
  StepPlan together{1, {}, {}, {}};
  // The pool has 8 blocks.
  for (int i = 0; i < 8; ++i) {
    SamplerParams sampler;
    sampler.seed = i;
    together.new_sequences.push_back({i, sampler});
    together.rows.push_back(Row(i, 0, {i, 7}, {i}));
  }
  Push(together);
  const StepResult all = sink_->WaitForResult(0);
  ASSERT_EQ(all.sampled.size(), 8u);
  StepPlan release{2, {0, 1, 2, 3, 4, 5, 6, 7}, {}, {}};
  Push(release);
  for (int i = 0; i < 8; ++i) {
    SamplerParams sampler;
    sampler.seed = i;
    StepPlan alone{3 + i, {}, {{100 + i, sampler}}, {}};
    if (i > 0) alone.released_sequence_ids = {99 + i};
    alone.rows.push_back(Row(100 + i, 0, {i, 7}, {3}));
    Push(alone);
    const StepResult result = sink_->WaitForResult(2 + i);
    ASSERT_EQ(result.sampled.size(), 1u);
    EXPECT_EQ(result.sampled[0].token_id, all.sampled[i].token_id) << i;
  }
}

// A text that begins in another sequence's blocks goes on as if it had computed
// them itself, penalties included.
TEST_F(RunnerTest, TakesOverWhatAnotherSequenceComputed) {
  Start(true, true);
  std::vector<int32_t> text(20);
  for (int i = 0; i < 20; ++i) text[i] = i % 7;
  SamplerParams sampler;
  sampler.temperature = 0;
  sampler.frequency_penalty = 2;
  sampler.prompt_token_count = 10;
  Push({1, {}, {{1, sampler}}, {Row(1, 0, text, {4, 5})}});
  StepRow row = Row(2, 16, {text.begin() + 16, text.end()}, {4, 6});
  row.taken_over_block_count = 1;
  row.taken_over_tokens.assign(text.begin(), text.begin() + 16);
  Push({2, {}, {{2, sampler}}, {row}});
  const StepResult first = sink_->WaitForResult(0);
  const StepResult second = sink_->WaitForResult(1);
  EXPECT_EQ(second.sampled.at(0).position, 20);
  EXPECT_EQ(second.sampled.at(0).token_id, first.sampled.at(0).token_id);
  EXPECT_EQ(second.blocks_in_use, 3);
  // Sequence 1 goes away; the block stays with sequence 2.
  Push({3, {1}, {}, {Row(2, 20, {1}, {})}});
  EXPECT_EQ(sink_->WaitForResult(2).blocks_in_use, 2);
}

// Planned ahead, token by token, it goes as it does when each token is told.
TEST_F(RunnerTest, RowsMayTakeTheTokenOfTheStepBefore) {
  Start(true, true);
  SamplerParams sampler;
  sampler.seed = 3;
  sampler.presence_penalty = 1;
  sampler.prompt_token_count = 3;
  Push({1, {}, {{1, sampler}}, {Row(1, 0, {1, 2, 3}, {4})}});
  for (int step = 2; step <= 5; ++step) {
    StepRow row = Row(1, step + 1, {0}, {});
    row.sampled_in_step_id = step - 1;
    Push({step, {}, {}, {row}});
  }
  std::vector<int32_t> ahead;
  for (int i = 0; i < 5; ++i) {
    ahead.push_back(sink_->WaitForResult(i).sampled.at(0).token_id);
  }
  std::vector<int32_t> told;
  Push({6, {1}, {{2, sampler}}, {Row(2, 0, {1, 2, 3}, {4})}});
  for (int i = 0; i < 5; ++i) {
    told.push_back(sink_->WaitForResult(5 + i).sampled.at(0).token_id);
    if (i < 4) Push({7 + i, {}, {}, {Row(2, 3 + i, {told.back()}, {})}});
  }
  EXPECT_EQ(ahead, told);
  // Only the latest token can be meant.
  StepRow row = Row(2, 7, {0}, {});
  row.sampled_in_step_id = 9;
  Push({11, {}, {}, {row}});
  EXPECT_TRUE(absl::IsInvalidArgument(sink_->WaitForEnd()));
}

// Guesses, right or wrong, change when tokens come and not which.
TEST_F(RunnerTest, GuessesChangeNoToken) {
  Start(true, true);
  SamplerParams sampler;
  sampler.seed = 5;
  sampler.frequency_penalty = 2;
  sampler.logprobs = 1;
  sampler.prompt_token_count = 3;
  const std::vector<int32_t> prompt = {1, 2, 3};
  constexpr int kOutput = 60;
  int64_t step_id = 0;
  const auto run = [&](StepPlan plan) {
    plan.step_id = ++step_id;
    Push(plan);
    return sink_->WaitForResult(step_id - 1).sampled;
  };

  std::vector<SampledToken> told =
      run({0, {}, {{1, sampler}}, {Row(1, 0, prompt, {4, 5, 6, 7})}});
  while (told.size() < kOutput) {
    const SampledToken last = told.back();
    told.push_back(
        run({0, {}, {}, {Row(1, last.position, {last.token_id}, {})}}).at(0));
  }
  const auto right = [&](int i) { return told.at(i).token_id; };
  const auto wrong = [&](int i) { return right(i) == 9 ? 10 : 9; };

  std::vector<SampledToken> guessed =
      run({0, {1}, {{2, sampler}}, {Row(2, 0, prompt, {4, 5, 6, 7})}});
  // How many guesses a row has, and how many of them are right: none, some,
  // all, and more than logits are kept at a time.
  const std::vector<std::pair<int, int>> rows = {
      {1, 0}, {3, 1}, {2, 2}, {0, 0}, {4, 3}, {38, 38}, {1, 1}};
  for (const auto& [n_guesses, n_right] : rows) {
    const int next = static_cast<int>(guessed.size());
    StepRow row = Row(2, guessed.back().position, {right(next - 1)}, {});
    for (int i = 0; i < n_guesses; ++i) {
      row.tokens.push_back(i < n_right ? right(next + i) : wrong(next + i));
    }
    row.draft_count = n_guesses;
    const std::vector<SampledToken> sampled = run({0, {}, {}, {row}});
    ASSERT_EQ(sampled.size(), n_right + 1u) << n_guesses << " guesses";
    guessed.insert(guessed.end(), sampled.begin(), sampled.end());
  }
  for (size_t i = 0; i < guessed.size(); ++i) {
    EXPECT_EQ(guessed[i].token_id, told[i].token_id) << i;
    EXPECT_EQ(guessed[i].position, told[i].position) << i;
    EXPECT_EQ(guessed[i].logprobs->logprob, told[i].logprobs->logprob) << i;
  }

  // Whose penalties count other tokens than its row follows is in error.
  StepRow row = Row(2, guessed.back().position, {1, 2, 3}, {});
  row.tokens[1] = wrong(static_cast<int>(guessed.size()));
  row.draft_count = 2;
  ASSERT_EQ(run({0, {}, {}, {row}}).size(), 1u);
  Push({step_id + 1, {}, {}, {Row(2, row.position + 2, {1}, {})}});
  EXPECT_TRUE(absl::IsInvalidArgument(sink_->WaitForEnd()));
}

// Rows with and without guesses side by side.
TEST_F(RunnerTest, GuessesOfOneRowAreNothingToAnother) {
  Start(true, true);
  const auto run = [this](int64_t step_id, StepRow first, StepRow second) {
    Push({step_id, {}, {}, {first, second}});
    return sink_->WaitForResult(step_id - 1).sampled;
  };
  SamplerParams greedy;
  greedy.temperature = 0;
  Push({1,
        {},
        {{1, greedy}, {2, greedy}},
        {Row(1, 0, {1, 2}, {0, 1, 2}), Row(2, 0, {5, 6}, {3})}});
  const std::vector<SampledToken> first = sink_->WaitForResult(0).sampled;
  std::vector<SampledToken> sampled =
      run(2, Row(1, 2, {first.at(0).token_id}, {}),
          Row(2, 2, {first.at(1).token_id}, {}));
  const int32_t after_both = sampled.at(1).token_id;
  const int32_t after_one = sampled.at(0).token_id;
  // More guesses than logits are kept at a time, then another sequence's.
  StepRow long_row = Row(1, 3, {after_one}, {});
  long_row.tokens.resize(36, after_one == 9 ? 10 : 9);
  long_row.draft_count = 35;
  sampled = run(3, long_row, Row(2, 3, {after_both}, {}));
  ASSERT_EQ(sampled.size(), 2u);
  EXPECT_EQ(sampled[0].sequence_id, 1);
  EXPECT_EQ(sampled[0].position, 4);
  EXPECT_EQ(sampled[1].sequence_id, 2);
  const int32_t token = sampled[1].token_id;
  // As alone.
  Push({4,
        {1, 2},
        {{3, greedy}},
        {Row(3, 0, {5, 6, first[1].token_id, after_both}, {4})}});
  EXPECT_EQ(sink_->WaitForResult(3).sampled.at(0).token_id, token);
}

TEST_F(RunnerTest, PenaltiesNeedTheTokensTakenOver) {
  Start(true, true);
  SamplerParams sampler;
  sampler.presence_penalty = 1;
  Push({1, {}, {{1, {}}}, {Row(1, 0, std::vector<int32_t>(16, 3), {4})}});
  StepRow row = Row(2, 16, {1}, {4, 6});
  row.taken_over_block_count = 1;
  Push({2, {}, {{2, sampler}}, {row}});
  EXPECT_TRUE(absl::IsInvalidArgument(sink_->WaitForEnd()));
}

// Whatever the cut into rows, and whichever of them replay output, penalties
// see the same history.
TEST_F(RunnerTest, AReplayRebuildsTheHistory) {
  Start(true, true);
  const std::vector<int32_t> prompt = {7, 8, 8};
  SamplerParams sampler;
  sampler.temperature = 0;
  sampler.repetition_penalty = 1.05f;
  sampler.frequency_penalty = 2;
  sampler.presence_penalty = 0.5f;
  // Three tokens that take turns as their counts grow.
  sampler.logit_bias = {{7, 100}, {8, 100}, {9, 100}};
  sampler.prompt_token_count = 3;

  int64_t step_id = 0;
  int64_t sequence_id = 0;
  // The token after `tokens`, run as rows of these lengths.
  const auto next = [&](const SamplerParams& params,
                        const std::vector<int32_t>& tokens,
                        const std::vector<int>& lengths) {
    StepResult result;
    int32_t position = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
      StepPlan plan{++step_id, {}, {}, {}};
      if (i == 0) {
        if (sequence_id > 0) plan.released_sequence_ids = {sequence_id};
        plan.new_sequences.push_back({++sequence_id, params});
      }
      const auto begin = tokens.begin() + position;
      plan.rows.push_back(
          Row(sequence_id, position, {begin, begin + lengths[i]},
              i == 0 ? std::vector<int32_t>{1, 2} : std::vector<int32_t>{},
              i + 1 == lengths.size()));
      Push(plan);
      result = sink_->WaitForResult(step_id - 1);
      position += lengths[i];
    }
    EXPECT_EQ(result.sampled.size(), 1u);
    return result.sampled.empty() ? -1 : result.sampled[0].token_id;
  };

  SamplerParams all_prompt = sampler;
  all_prompt.prompt_token_count = 100;
  std::vector<int32_t> tokens = prompt;
  int n_other_as_prompt = 0;
  for (int i = 0; i < 12; ++i) {
    // As it is when decoding: the prompt, then token by token.
    std::vector<int> one_by_one(1 + i, 1);
    one_by_one[0] = 3;
    const int32_t token = next(sampler, tokens, one_by_one);
    EXPECT_EQ(next(sampler, tokens, {3 + i}), token) << i;
    EXPECT_EQ(next(sampler, tokens, {2, 1 + i}), token) << i;
    n_other_as_prompt += next(all_prompt, tokens, {3 + i}) != token;
    tokens.push_back(token);
  }
  for (const int32_t id : {7, 8, 9}) {
    EXPECT_GT(std::count(tokens.begin() + 3, tokens.end(), id), 2) << id;
  }
  EXPECT_GT(n_other_as_prompt, 3);
}

TEST_F(RunnerTest, LogprobsComeWhereTheyAreAskedFor) {
  Start(true, true);
  SamplerParams with;
  with.temperature = 0;
  with.logprobs = 3;
  with.logit_bias = {{11, 100}};
  SamplerParams without = with;
  without.logprobs = -1;
  Push({1,
        {},
        {{1, with}, {2, without}},
        {Row(1, 0, {1, 2}, {0}), Row(2, 0, {1, 2}, {1})}});
  const StepResult result = sink_->WaitForResult(0);
  ASSERT_EQ(result.sampled.size(), 2u);
  EXPECT_EQ(result.sampled[0].token_id, 11);
  EXPECT_FALSE(result.sampled[1].logprobs.has_value());
  ASSERT_TRUE(result.sampled[0].logprobs.has_value());
  // They are the model's: the bias is not in them.
  const TokenLogprobs& logprobs = *result.sampled[0].logprobs;
  ASSERT_EQ(logprobs.alternatives.size(), 3u);
  EXPECT_LT(logprobs.logprob, -0.5f);
  EXPECT_LE(logprobs.logprob, logprobs.alternatives[0].logprob);
}

// More tokens than there are logits at a time, whole and in pieces, beside
// others, equal those of a text that is decoded token by token.
TEST_F(RunnerTest, PromptsAreScoredWhateverTheCut) {
  constexpr int kTokens = 60;
  constexpr int kAlternatives = 3;
  const std::vector<int32_t> text = Text(kTokens, 5);
  Start(true, true);
  std::vector<TokenLogprobs> expected;
  {
    auto kv = KvCache::Create(
        {2, config_.n_kv_heads, config_.head_dim, 4, config_.context_length});
    ASSERT_TRUE(kv.ok()) << kv.status();
    Stage stage(weights_, kv->get(), &pool_, &BestKernels(), 1);
    const std::vector<int32_t> block_table = {2, 0, 3, 1};
    SamplerScratch scratch;
    for (int i = 0; i + 1 < kTokens; ++i) {
      const MicroBatchRow row = {absl::MakeConstSpan(text).subspan(i, 1), i,
                                 block_table, 1};
      stage.Forward({row}, stage.hidden());
      stage.ComputeLogits(0, 1, stage.hidden());
      expected.push_back(ComputeLogprobs(stage.logits(0), text[i + 1],
                                         kAlternatives, &scratch));
    }
  }

  SamplerParams scoring;
  scoring.temperature = 0;  // which needs one logit alone
  scoring.prompt_logprobs = kAlternatives;
  const SamplerParams plain;
  int64_t step_id = 0;
  int32_t sampled = -1;
  for (const std::vector<int>& lengths : std::vector<std::vector<int>>{
           {60}, {16, 32, 12}, {1, 58, 1}, {33, 27}}) {
    std::vector<TokenLogprobs> scores;
    int position = 0;
    for (size_t c = 0; c < lengths.size(); ++c) {
      const int end = position + lengths[c];
      const bool samples = end == kTokens;
      StepPlan plan{++step_id, {}, {}, {}};
      StepRow row =
          Row(1, position, {text.begin() + position, text.begin() + end}, {},
              samples);
      row.scored_tokens.assign(text.begin() + position + 1,
                               text.begin() + end + (samples ? 0 : 1));
      if (c == 0) {
        if (step_id > 1) plan.released_sequence_ids = {1, 2};
        plan.new_sequences = {{2, plain}, {1, scoring}};
        row.new_block_ids = {4, 5, 6, 7};
      }
      plan.rows = {Row(2, static_cast<int>(c), {7}, {}), row};
      if (c == 0) plan.rows[0].new_block_ids = {1};
      Push(plan);
      const StepResult result = sink_->WaitForResult(step_id - 1);
      ASSERT_EQ(result.sampled.size(), samples ? 2u : 1u);
      EXPECT_EQ(result.sampled[0].sequence_id, 2);
      if (samples) {
        if (sampled < 0) sampled = result.sampled[1].token_id;
        EXPECT_EQ(result.sampled[1].position, kTokens);
        EXPECT_EQ(result.sampled[1].token_id, sampled);
      }
      if (row.scored_tokens.empty()) {
        EXPECT_TRUE(result.scored.empty());
      } else {
        ASSERT_EQ(result.scored.size(), 1u);
        EXPECT_EQ(result.scored[0].sequence_id, 1);
        EXPECT_EQ(result.scored[0].position, position + 1);
        EXPECT_TRUE(result.scored[0].status.ok());
        for (const TokenLogprobs& token : result.scored[0].tokens) {
          scores.push_back(token);
        }
      }
      position = end;
    }
    ASSERT_EQ(scores.size(), expected.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      ExpectSame(scores[i], expected[i], i);
    }
  }
}

// A replay computes tokens again that it has scored before.
TEST_F(RunnerTest, ScoresTheEndOfARowAlone) {
  Start(true, true);
  const std::vector<int32_t> text = Text(40, 9);
  StepRow row = Row(1, 0, text, {0, 1, 2}, false);
  row.scored_tokens.assign(text.begin() + 1, text.end());
  row.scored_tokens.push_back(3);
  Push({1, {}, {{1, {}}}, {row}});
  row.scored_tokens.erase(row.scored_tokens.begin(),
                          row.scored_tokens.begin() + 35);
  Push({2, {1}, {{1, {}}}, {row}});
  const StepResult all = sink_->WaitForResult(0);
  const StepResult end = sink_->WaitForResult(1);
  EXPECT_EQ(all.scored.at(0).position, 1);
  EXPECT_EQ(all.scored[0].tokens.size(), 40u);
  EXPECT_TRUE(all.sampled.empty());
  EXPECT_EQ(end.scored.at(0).position, 36);
  ASSERT_EQ(end.scored[0].tokens.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    ExpectSame(end.scored[0].tokens[i], all.scored[0].tokens[35 + i], i);
  }
}

TEST_F(RunnerTest, AnErrorEndsTheStreamAndForgetsTheSequences) {
  Start(true, true);
  Push({1, {}, {{1, {}}}, {Row(1, 0, {1}, {0})}});
  Push({2, {}, {}, {Row(1, 5, {1}, {})}});
  Push({3, {}, {}, {Row(1, 1, {1}, {})}});
  const absl::Status status = sink_->WaitForEnd();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_EQ(sink_->result_count(), 1u);
  EXPECT_EQ(mailbox_->Push({4, {}, {}, {}}), status);
  runner_.reset();
  EXPECT_EQ(kv_->sequence_count(), 0);
}

TEST_F(RunnerTest, StepsHaveNoGaps) {
  Start(true, true);
  Push({2, {}, {}, {}});
  EXPECT_TRUE(absl::IsInvalidArgument(sink_->WaitForEnd()));
}

TEST_F(RunnerTest, HiddenStatesThatAreNotNumbersFailTheRowOnly) {
  Start(false, true);
  Push({1, {}, {{1, {}}, {2, {}}}, {Row(1, 0, {1}, {0}), Row(2, 0, {2}, {1})}});
  std::vector<float> hidden(2 * kHidden, 0.5f);
  hidden[3] = std::numeric_limits<float>::quiet_NaN();
  Receive(1, hidden);
  const StepResult result = sink_->WaitForResult(0);
  ASSERT_EQ(result.sampled.size(), 2u);
  EXPECT_TRUE(absl::IsDataLoss(result.sampled[0].status));
  EXPECT_EQ(result.sampled[0].token_id, -1);
  EXPECT_TRUE(result.sampled[1].status.ok()) << result.sampled[1].status;
  EXPECT_GE(result.sampled[1].token_id, 0);
}

TEST_F(RunnerTest, APromptThatCannotBeScoredFailsItsRowOnly) {
  Start(false, true);
  StepRow bad = Row(1, 0, {1, 2, 3}, {0}, false);
  bad.scored_tokens = {2, 3, 4};
  StepRow good = Row(2, 0, {1, 2}, {1}, false);
  good.scored_tokens = {2, 3};
  Push({1, {}, {{1, {}}, {2, {}}}, {bad, good}});
  std::vector<float> hidden(5 * kHidden, 0.5f);
  hidden[2 * kHidden] = std::numeric_limits<float>::infinity();
  Receive(1, hidden);
  const StepResult result = sink_->WaitForResult(0);
  ASSERT_EQ(result.scored.size(), 2u);
  EXPECT_TRUE(absl::IsDataLoss(result.scored[0].status));
  EXPECT_TRUE(result.scored[0].tokens.empty());
  EXPECT_TRUE(result.scored[1].status.ok()) << result.scored[1].status;
  EXPECT_EQ(result.scored[1].tokens.size(), 2u);
}

TEST_F(RunnerTest, TheMailboxIsBounded) {
  StepMailbox mailbox(2, [](absl::Status) {});
  EXPECT_TRUE(mailbox.Push({1, {}, {}, {}}).ok());
  EXPECT_TRUE(mailbox.Push({2, {}, {}, {}}).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(mailbox.Push({3, {}, {}, {}})));
}

}  // namespace
}  // namespace tern
