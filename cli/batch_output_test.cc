#include "cli/batch_output.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {
namespace {

constexpr char kA[] =
    "{\"id\":\"a\",\"text\":\"x\",\"finish_reason\":\"stop\",\"usage\":{}}\n";
constexpr char kB[] =
    "{\"id\":\"b\",\"error\":{\"code\":\"NOT_FOUND\",\"message\":\"m\"}}\n";

v1::BatchGenerateResponse Answer(const std::string& text) {
  v1::BatchGenerateResponse result;
  v1::Candidate* candidate = result.mutable_response()->add_candidates();
  candidate->set_text(text);
  candidate->set_finish_reason(v1::FINISH_REASON_LENGTH);
  v1::Usage* usage = result.mutable_response()->mutable_usage();
  usage->set_prompt_token_count(3);
  usage->set_output_token_count(2);
  usage->set_cached_prompt_token_count(1);
  return result;
}

TEST(ResultLine, HasTheAnswerAndItsCost) {
  EXPECT_EQ(ResultLine("a\"b", Answer("Grüße\n\"")),
            "{\"id\":\"a\\\"b\",\"text\":\"Grüße\\n\\\"\","
            "\"finish_reason\":\"length\",\"usage\":{\"prompt_token_count\":3,"
            "\"output_token_count\":2,\"cached_prompt_token_count\":1}}\n");
}

TEST(ResultLine, SaysWhereTheArithmeticChanged) {
  v1::BatchGenerateResponse result = Answer("x");
  v1::NumericsChange* change =
      result.mutable_response()->add_numerics_changes();
  change->set_output_token_count(1);
  change->set_numerics_id("cpu-1/stored");
  EXPECT_EQ(ResultLine("a", result),
            "{\"id\":\"a\",\"text\":\"x\",\"finish_reason\":\"length\","
            "\"usage\":{\"prompt_token_count\":3,\"output_token_count\":2,"
            "\"cached_prompt_token_count\":1},\"numerics_changes\":"
            "[{\"candidate_index\":0,\"output_token_count\":1,"
            "\"numerics_id\":\"cpu-1/stored\"}]}\n");
}

TEST(ResultLine, HasWhatWasAskedFor) {
  v1::BatchGenerateResponse result = Answer("x");
  v1::Candidate& candidate = *result.mutable_response()->mutable_candidates(0);
  candidate.set_finish_reason(v1::FINISH_REASON_STOP);
  candidate.set_stop_token_id(9);
  candidate.add_token_ids(5);
  v1::TokenLogprob* token = candidate.add_logprobs();
  token->set_token_id(5);
  token->set_piece("\xff");
  token->set_logprob(-0.5);
  v1::TokenAlternative* other = token->add_alternatives();
  other->set_token_id(6);
  other->set_piece("y");
  other->set_logprob(-1.5);
  token = result.mutable_response()->add_prompt_logprobs();
  token->set_token_id(7);
  token->set_piece("y");
  token->set_logprob(-2);
  result.mutable_response()->clear_usage();
  EXPECT_EQ(
      ResultLine("a", result),
      "{\"id\":\"a\",\"prompt_logprobs\":[{\"token_id\":7,\"piece\":\"eQ==\","
      "\"logprob\":-2.0}],\"text\":\"x\",\"finish_reason\":\"stop\","
      "\"stop_token_id\":9,\"token_ids\":[5],\"logprobs\":[{\"token_id\":5,"
      "\"piece\":\"/w==\",\"logprob\":-0.5,\"alternatives\":[{\"token_id\":6,"
      "\"piece\":\"eQ==\",\"logprob\":-1.5}]}],"
      "\"usage\":{\"prompt_token_count\":0,\"output_token_count\":0,"
      "\"cached_prompt_token_count\":0}}\n");
}

TEST(ResultLine, HasSeveralCandidates) {
  v1::BatchGenerateResponse result = Answer("x");
  v1::Candidate* second = result.mutable_response()->add_candidates();
  second->set_index(1);
  second->set_text("y");
  second->set_finish_reason(v1::FINISH_REASON_STOP);
  second->set_stop_string("z");
  const std::string line = ResultLine("a", result);
  EXPECT_TRUE(absl::StartsWith(
      line,
      "{\"id\":\"a\",\"candidates\":[{\"index\":0,\"text\":\"x\","
      "\"finish_reason\":\"length\"},{\"index\":1,\"text\":\"y\","
      "\"finish_reason\":\"stop\",\"stop_string\":\"z\"}],\"usage\":{"))
      << line;
}

TEST(ResultLine, HasTheError) {
  v1::BatchGenerateResponse result;
  result.mutable_error()->set_code(3);
  result.mutable_error()->set_message("too \"long\"");
  EXPECT_EQ(ResultLine("a", result),
            "{\"id\":\"a\",\"error\":{\"code\":\"INVALID_ARGUMENT\","
            "\"message\":\"too \\\"long\\\"\"}}\n");
}

class BatchOutputTest : public testing::Test {
 protected:
  BatchOutputTest() : path_(testing::TempDir() + "/results.jsonl") {
    std::remove(path_.c_str());
  }

  void Write(absl::string_view contents) {
    std::ofstream(path_, std::ios::binary) << contents;
  }

  std::string Contents() {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::unique_ptr<BatchOutput> MustOpen() {
    auto output = BatchOutput::Open(path_);
    EXPECT_TRUE(output.ok()) << output.status();
    return output.ok() ? std::move(output).value() : nullptr;
  }

  const std::string path_;
};

TEST_F(BatchOutputTest, AnewFileIsMadeAndGoneOnWith) {
  {
    const auto output = MustOpen();
    EXPECT_EQ(output->n_finished(), 0);
    EXPECT_TRUE(output->Append(kA).ok());
    EXPECT_TRUE(output->Append(kB).ok());
    EXPECT_TRUE(output->Sync().ok());
  }
  EXPECT_EQ(Contents(), absl::StrCat(kA, kB));
  const auto output = MustOpen();
  EXPECT_TRUE(output->Has("a"));
  EXPECT_TRUE(output->Has("b"));
  EXPECT_FALSE(output->Has("c"));
  EXPECT_EQ(output->n_finished(), 2);
  EXPECT_EQ(output->n_errors(), 1);
  EXPECT_TRUE(output->Append(ResultLine("c", Answer("z"))).ok());
  EXPECT_TRUE(absl::StartsWith(
      Contents(), absl::StrCat(kA, kB, "{\"id\":\"c\",\"text\":\"z\"")));
}

// Wherever the last line was cut.
TEST_F(BatchOutputTest, ATornLastLineIsTakenOff) {
  const absl::string_view torn = kB;
  for (size_t size = 1; size < torn.size(); ++size) {
    Write(absl::StrCat(kA, torn.substr(0, size)));
    const auto output = MustOpen();
    ASSERT_NE(output, nullptr);
    EXPECT_EQ(output->n_finished(), 1);
    EXPECT_FALSE(output->Has("b"));
    EXPECT_EQ(Contents(), kA);
    EXPECT_TRUE(output->Append(kB).ok());
    EXPECT_EQ(Contents(), absl::StrCat(kA, kB));
  }
  Write(torn.substr(0, 10));
  EXPECT_EQ(MustOpen()->n_finished(), 0);
  EXPECT_EQ(Contents(), "");
}

TEST_F(BatchOutputTest, AnIdThatIsThereTwiceCountsOnce) {
  Write(absl::StrCat(kA, kB, kA, kB));
  const auto output = MustOpen();
  EXPECT_EQ(output->n_finished(), 2);
  EXPECT_EQ(output->n_errors(), 1);
}

TEST_F(BatchOutputTest, LinesMayEndAsOnOtherSystems) {
  std::string contents = absl::StrCat(kA, kB);
  contents.insert(contents.size() - 1, "\r");
  Write(contents);
  EXPECT_EQ(MustOpen()->n_finished(), 2);
  EXPECT_EQ(Contents(), contents);
}

TEST_F(BatchOutputTest, AFileOfOtherThingsIsLeftAlone) {
  const std::vector<std::pair<std::string, std::string>> files = {
      {"precious", ":1 is no result of `tern batch` (nor the beginning"},
      {"precious\n", ":1 is no result of `tern batch` (no JSON object)"},
      {"{\"prompt\":\"p\"}\n", "(without an id)"},
      {"{\"id\":\"a\",\"prompt\":\"p\"}\n", "(without usage and without error"},
      {"{\"id\":5,\"usage\":{}}\n", "(without an id)"},
      {absl::StrCat(kA, "\n"), ":2 is no result"},
      {absl::StrCat(kA, "precious"), ":2 is no result"},
      {absl::StrCat(kA, "precious\n", "{\"id\":\"b"), ":2 is no result"},
      {std::string(5, '\0'), ":1 is no result"}};
  for (const auto& [contents, why] : files) {
    Write(contents);
    const absl::Status status = BatchOutput::Open(path_).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), absl::StrCat(path_, ":")))
        << status;
    EXPECT_TRUE(absl::StrContains(status.message(), why)) << status;
    EXPECT_EQ(Contents(), contents);
  }
}

TEST_F(BatchOutputTest, OneRunAtATime) {
  auto output = MustOpen();
  const absl::Status status = BatchOutput::Open(path_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(status.message(), "in use by another"));
  output.reset();
  EXPECT_NE(MustOpen(), nullptr);
}

TEST_F(BatchOutputTest, WhatIsNoFileIsNamed) {
  for (const std::string path : {"/dev/null", "/", "/no/such/folder/x"}) {
    const absl::Status status = BatchOutput::Open(path).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_TRUE(absl::StrContains(status.message(), path)) << status;
  }
}

// A full disk, as far as the file can tell.
TEST_F(BatchOutputTest, ALineThatDoesNotFitLeavesNothing) {
  const auto output = MustOpen();
  EXPECT_TRUE(output->Append(kA).ok());
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = sizeof(kA) + 10;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = output->Append(kB);
  EXPECT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, handler);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), path_)) << status;
  EXPECT_EQ(Contents(), kA);
}

}  // namespace
}  // namespace tern
