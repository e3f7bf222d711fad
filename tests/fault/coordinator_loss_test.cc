// The coordinator's process is killed, told to end, or replaced by a standby;
// clients that asked to be able to resume get the very answers that they would
// have had.

#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"

namespace tern {
namespace {

// All that there is of an answer, whatever the pieces it came in.
struct Answer {
  struct Candidate {
    std::string text;
    std::vector<int32_t> ids;
    std::vector<std::string> logprobs;  // every bit of them
    int n_ends = 0;
    std::string end;  // reason and cause

    bool operator==(const Candidate& other) const {
      return text == other.text && ids == other.ids &&
             logprobs == other.logprobs && n_ends == other.n_ends &&
             end == other.end;
    }
  };

  void Add(const v1::StreamGenerateResponse& message) {
    for (const v1::TokenLogprob& token : message.prompt_logprobs()) {
      prompt_logprobs.push_back(token.SerializeAsString());
    }
    if (message.has_prompt_info()) {
      numerics_id = message.prompt_info().numerics_id();
    }
    for (const v1::NumericsChange& change : message.numerics_changes()) {
      numerics_changes.emplace_back(change.output_token_count(),
                                    change.numerics_id());
    }
    if (message.has_usage()) {
      n_tokens = message.usage().output_token_count();
      ++n_usages;
    }
    if (!message.has_delta()) return;
    const v1::Candidate& delta = message.delta();
    Candidate& candidate = candidates[delta.index()];
    candidate.text += delta.text();
    candidate.ids.insert(candidate.ids.end(), delta.token_ids().begin(),
                         delta.token_ids().end());
    for (const v1::TokenLogprob& token : delta.logprobs()) {
      candidate.logprobs.push_back(token.SerializeAsString());
    }
    if (delta.finish_reason() == v1::FINISH_REASON_UNSPECIFIED) return;
    ++candidate.n_ends;
    candidate.end =
        absl::StrCat(v1::FinishReason_Name(delta.finish_reason()), " ",
                     delta.stop_string(), " ", delta.stop_token_id());
  }

  bool operator==(const Answer& other) const {
    return candidates == other.candidates && n_tokens == other.n_tokens &&
           n_usages == other.n_usages &&
           prompt_logprobs == other.prompt_logprobs &&
           numerics_id == other.numerics_id &&
           numerics_changes == other.numerics_changes;
  }

  std::map<int, Candidate> candidates;
  std::vector<std::string> prompt_logprobs;
  int n_tokens = 0;
  int n_usages = 0;
  std::string numerics_id;
  // Tokens before, and what the others are computed with.
  std::vector<std::pair<int, std::string>> numerics_changes;
};

v1::GenerateRequest Request(const std::string& id, const std::string& text,
                            int max_tokens = 200) {
  v1::GenerateRequest request;
  request.set_request_id(id);
  request.set_text(text);
  request.mutable_sampling()->set_temperature(0.8f);
  request.mutable_sampling()->set_seed(7);
  request.mutable_stopping()->set_max_output_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_end_of_sequence(true);
  request.mutable_response_options()->set_return_token_ids(true);
  return request;
}

std::vector<v1::GenerateRequest> AllKinds() {
  std::vector<v1::GenerateRequest> kinds;
  kinds.push_back(Request("greedy", "ROMEO:\n"));
  kinds.back().mutable_sampling()->set_temperature(0);
  kinds.push_back(Request("seeded", "JULIET:\n"));
  kinds.push_back(Request("penalties", "First Citizen:\n"));
  kinds.back().mutable_sampling()->set_repetition_penalty(1.2f);
  kinds.back().mutable_sampling()->set_frequency_penalty(0.3f);
  kinds.back().mutable_sampling()->set_presence_penalty(0.2f);
  kinds.push_back(Request("logprobs", "All:\n"));
  kinds.back().mutable_response_options()->set_logprobs(3);
  kinds.push_back(Request("prompt", "ROMEO:\nWhat light through yonder"));
  kinds.back().mutable_response_options()->set_prompt_logprobs(2);
  kinds.push_back(Request("several", "MENENIUS:\n", 150));
  kinds.back().mutable_sampling()->set_sample_count(2);
  kinds.push_back(Request("echo", "SICINIUS:\n"));
  kinds.back().mutable_response_options()->set_echo(true);
  // Held back now and then, and never found.
  kinds.back().mutable_stopping()->add_stop_strings("the \x01");
  // Long enough to be under way still when a busy machine gets to disturb them.
  for (v1::GenerateRequest& kind : kinds) {
    kind.mutable_stopping()->set_max_output_tokens(400);
  }
  return kinds;
}

class CoordinatorLossTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/loss-XXXXXX");
    ASSERT_NE(mkdtemp(&folder_[0]), nullptr);
  }

  void Start(bool journal, int stages = 1, bool standby = false) {
    LocalCluster::Options options;
    options.stages = stages;
    options.standby = standby;
    if (journal) {
      options.coordinator_flags = {"--journal_dir=" + folder_ + "/journal"};
    }
    auto started = LocalCluster::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    cluster_ = *std::move(started);
    client_ = MakeClient(cluster_->server());
  }

  static std::unique_ptr<Client> MakeClient(const std::string& server) {
    ClientOptions options;
    options.server = server;
    auto client = Client::Create(options);
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }

  // Streams an answer to its end. Calls `on_tokens` with the number of tokens
  // of the first candidate after each message. `window`: zero for none.
  absl::Status Stream(const v1::GenerateRequest& request, absl::Duration window,
                      Answer* answer,
                      const std::function<void(int)>& on_tokens = {}) {
    CallOptions call;
    call.deadline = absl::Seconds(100);
    call.resume_window = window;
    call.on_retry = [this](const absl::Status&, absl::Duration) {
      ++n_retries_;
    };
    return client_->StreamGenerate(
        request,
        [&](const v1::StreamGenerateResponse& message) {
          answer->Add(message);
          if (on_tokens) {
            on_tokens(static_cast<int>(answer->candidates[0].ids.size()));
          }
          return true;
        },
        call);
  }

  // The same without disturbance, under another name.
  Answer Undisturbed(v1::GenerateRequest request) {
    request.set_request_id("undisturbed");
    Answer answer;
    const absl::Status status = Stream(request, absl::ZeroDuration(), &answer);
    EXPECT_TRUE(status.ok()) << status;
    return answer;
  }

  // Streams all of `kinds` at a time and calls `disturb` when each has a few
  // tokens; all must end as if nothing had been.
  void StreamAll(const std::vector<v1::GenerateRequest>& kinds,
                 const std::function<void()>& disturb) {
    std::vector<Answer> undisturbed, answers(kinds.size());
    for (const auto& request : kinds) {
      undisturbed.push_back(Undisturbed(request));
    }
    std::vector<absl::Status> statuses(kinds.size());
    std::vector<std::thread> threads;
    absl::BlockingCounter begun(static_cast<int>(kinds.size()));
    for (size_t i = 0; i < kinds.size(); ++i) {
      threads.emplace_back([&, i] {
        bool has_begun = false;
        statuses[i] =
            Stream(kinds[i], absl::Minutes(1), &answers[i], [&](int n) {
              if (n < 5 || has_begun) return;
              has_begun = true;
              begun.DecrementCount();
            });
      });
    }
    begun.Wait();
    disturb();
    for (std::thread& thread : threads) thread.join();
    for (size_t i = 0; i < kinds.size(); ++i) {
      EXPECT_TRUE(statuses[i].ok())
          << kinds[i].request_id() << ": " << statuses[i] << cluster_->Logs();
      EXPECT_TRUE(answers[i] == undisturbed[i])
          << kinds[i].request_id() << ": " << answers[i].candidates[0].text
          << "\n--- undisturbed:\n"
          << undisturbed[i].candidates[0].text << cluster_->Logs();
    }
    EXPECT_GT(n_retries_, 0);
  }

  // Waits until the standby knows that it is one.
  void AwaitStandby() {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (cluster_->standby().Log().find("event=standby") ==
           std::string::npos) {
      ASSERT_LT(absl::Now(), deadline) << cluster_->Logs();
    }
  }

  void AwaitNoBlocksInUse() {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    for (;;) {
      const auto model = client_->GetModel({});
      ASSERT_TRUE(model.ok()) << model.status();
      int n = 0;
      for (const v1::Pipeline& pipeline : model->model().pipelines()) {
        n += pipeline.kv_block_in_use_count();
      }
      if (n == 0) return;
      ASSERT_LT(absl::Now(), deadline) << model->DebugString();
    }
  }

  std::string folder_;
  std::unique_ptr<LocalCluster> cluster_;
  std::unique_ptr<Client> client_;
  std::atomic<int> n_retries_{0};
};

TEST_F(CoordinatorLossTest, KilledItsStreamsGoOnWithTheNext) {
  Start(/*journal=*/true, /*stages=*/2);
  std::vector<v1::GenerateRequest> kinds = AllKinds();
  // A stop string that comes after the disturbance.
  const Answer whole = Undisturbed(kinds[1]);
  kinds.push_back(Request("stop", "JULIET:\n"));
  kinds.back().mutable_stopping()->add_stop_strings(
      whole.candidates.at(0).text.substr(
          whole.candidates.at(0).text.size() * 3 / 4, 9));
  StreamAll(kinds, [this] {
    ASSERT_TRUE(cluster_->RestartCoordinator().ok()) << cluster_->Logs();
  });
  AwaitNoBlocksInUse();
}

TEST_F(CoordinatorLossTest, KilledAgainAndAgain) {
  Start(/*journal=*/true);
  StreamAll(
      {Request("a", "ROMEO:\n", 400), Request("b", "JULIET:\n", 400)}, [this] {
        for (int i = 0; i < 3; ++i) {
          ASSERT_TRUE(cluster_->RestartCoordinator().ok());
          ASSERT_TRUE(cluster_->WaitUntilReady().ok()) << cluster_->Logs();
        }
      });
}

// And what the workers have in their KV blocks with them.
TEST_F(CoordinatorLossTest, ToldToEndItLeavesItsStreamsToTheNext) {
  Start(/*journal=*/true, /*stages=*/2);
  std::string text;
  for (int i = 0; i < 20; ++i) text += "What light through yonder window? ";
  const Answer before = Undisturbed(Request("long", text));
  StreamAll(AllKinds(), [this] {
    cluster_->coordinator().Signal(SIGTERM);
    const auto code = cluster_->coordinator().Wait(absl::Seconds(30));
    ASSERT_TRUE(code.ok()) << code.status();
    EXPECT_EQ(*code, 0);
    ASSERT_TRUE(cluster_->RestartCoordinator().ok());
  });
  ASSERT_TRUE(cluster_->WaitUntilReady().ok()) << cluster_->Logs();
  EXPECT_THAT(cluster_->coordinator().Log(),
              ::testing::ContainsRegex("event=kv_kept .* stages=2 of=2 "));
  EXPECT_TRUE(Undisturbed(Request("long", text)) == before);
  const auto model = client_->GetModel({});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_GT(model->model().pipelines(0).prefix_cached_token_count(), 100);
}

TEST_F(CoordinatorLossTest, AStandbyTakesOver) {
  Start(/*journal=*/true, /*stages=*/1, /*standby=*/true);
  AwaitStandby();
  StreamAll(AllKinds(), [this] {
    EXPECT_THAT(cluster_->standby().Log(),
                ::testing::ContainsRegex(
                    "event=standby .*holder=.*pid=[0-9]+ listen="));
    cluster_->coordinator().Signal(SIGKILL);
  });
  EXPECT_THAT(cluster_->standby().Log(),
              ::testing::HasSubstr("event=coordinator_up"));
  AwaitNoBlocksInUse();
}

TEST_F(CoordinatorLossTest, AStandbyThatIsToldToEndDoes) {
  Start(/*journal=*/true, /*stages=*/1, /*standby=*/true);
  AwaitStandby();
  cluster_->standby().Signal(SIGTERM);
  const auto code = cluster_->standby().Wait(absl::Seconds(30));
  ASSERT_TRUE(code.ok()) << code.status();
  EXPECT_EQ(*code, 0);
}

// The next coordinator computes with another head.
TEST_F(CoordinatorLossTest, AnotherArithmeticEndsWhatWasBegun) {
  Start(/*journal=*/true);
  Answer answer;
  bool is_killed = false;
  const absl::Status status =
      Stream(Request("a", "ROMEO:\n"), absl::Minutes(1), &answer, [&](int n) {
        if (n < 5 || is_killed) return;
        is_killed = true;
        ASSERT_TRUE(cluster_->RestartCoordinator({"--head_mode=stored"}).ok());
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("--allow_numerics_change"));
}

TEST_F(CoordinatorLossTest, AnotherArithmeticGoesOnWhereItIsAllowedAndSaysSo) {
  Start(/*journal=*/true);
  v1::GenerateRequest request = Request("a", "ROMEO:\n");
  request.mutable_sampling()->set_temperature(0);
  const Answer undisturbed = Undisturbed(request);
  EXPECT_TRUE(undisturbed.numerics_changes.empty());
  Answer answer;
  int n_killed = 0;
  const absl::Status status =
      Stream(request, absl::Minutes(1), &answer, [&](int n) {
        // There, and back again.
        if (n < 20 + 60 * n_killed || n_killed == 2) return;
        const char* head[] = {"--head_mode=stored", "--head_mode=int8"};
        // With SIGTERM: the journal has all that was told.
        cluster_->coordinator().Signal(SIGTERM);
        ASSERT_TRUE(cluster_->coordinator().Wait(absl::Seconds(30)).ok());
        ASSERT_TRUE(cluster_
                        ->RestartCoordinator(
                            {head[n_killed++], "--allow_numerics_change"})
                        .ok());
      });
  ASSERT_TRUE(status.ok()) << status << cluster_->Logs();
  EXPECT_EQ(answer.numerics_id, "cpu-1/int8");
  ASSERT_EQ(answer.numerics_changes.size(), 2u) << cluster_->Logs();
  const auto [n_first, first] = answer.numerics_changes[0];
  const auto [n_second, second] = answer.numerics_changes[1];
  EXPECT_EQ(first, "cpu-1/stored");
  EXPECT_EQ(second, "cpu-1/int8");
  EXPECT_GE(n_first, 20);
  EXPECT_GE(n_second, 80);
  const std::vector<int32_t>& ids = answer.candidates[0].ids;
  ASSERT_EQ(ids.size(), 200u);
  const std::vector<int32_t>& before = undisturbed.candidates.at(0).ids;
  EXPECT_TRUE(std::equal(ids.begin(), ids.begin() + n_first, before.begin()));

  // What follows is what the other arithmetic makes of the tokens before.
  v1::TokenizeRequest tokenize;
  tokenize.set_text(request.text());
  const auto prompt = client_->Tokenize(tokenize);
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  request.mutable_token_ids()->mutable_ids()->CopyFrom(prompt->token_ids());
  request.mutable_token_ids()->mutable_ids()->Add(ids.begin(),
                                                  ids.begin() + n_second);
  request.mutable_stopping()->set_max_output_tokens(200 - n_second);
  EXPECT_EQ(Undisturbed(request).candidates.at(0).ids,
            std::vector<int32_t>(ids.begin() + n_second, ids.end()));
}

TEST_F(CoordinatorLossTest, WithoutAJournalTheClientIsTold) {
  Start(/*journal=*/false);
  Answer answer;
  bool is_killed = false;
  const absl::Status status = Stream(
      Request("a", "ROMEO:\n", 400), absl::Minutes(1), &answer, [&](int n) {
        if (n < 5 || is_killed) return;
        is_killed = true;
        ASSERT_TRUE(cluster_->RestartCoordinator().ok());
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("without a journal"));
}

}  // namespace
}  // namespace tern
