#include "coordinator/journal.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TokenLogprobs Logprob(float logprob) {
  TokenLogprobs logprobs;
  logprobs.logprob = logprob;
  logprobs.alternatives = {{3, -0.5f}, {4, logprob}};
  return logprobs;
}

class JournalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string folder = absl::StrCat(::testing::TempDir(), "/journal-XXXXXX");
    ASSERT_NE(mkdtemp(&folder[0]), nullptr);
    options_.folder = folder + "/made";
    options_.wall_now = [] { return absl::FromUnixSeconds(1'000'000); };
    path_ = options_.folder + "/requests.journal";
  }

  void Open() {
    journal_.reset();
    auto journal = Journal::Open(options_, &image_);
    ASSERT_TRUE(journal.ok()) << journal.status();
    journal_ = *std::move(journal);
  }

  // A request with everything set, so that nothing can be left out unseen.
  static std::shared_ptr<RequestLog> Full(const std::string& id) {
    auto log = std::make_shared<RequestLog>();
    log->principal = "me";
    log->resume_window = absl::Milliseconds(61'500);
    log->model = "tiny";
    log->model_fingerprint = 0xfedcba9876543210;
    log->numerics_id = "cpu-1/int8";
    CheckedRequest& request = log->request;
    request.request_id = id;
    request.stop_strings = {"stop", std::string("\xff\0x", 3)};
    request.return_token_ids = true;
    request.sample_count = 2;
    request.echo = "echo";
    request.seed = -7;
    SequenceParameters& parameters = request.parameters;
    parameters.prompt = {5, 6, 7};
    parameters.stop_token_ids = {1, 2};
    parameters.max_output_tokens = 40;
    parameters.min_output_tokens = 3;
    parameters.priority = -4;
    parameters.deadline = absl::FromUnixSeconds(2'000'000);
    SamplerParameters& sampler = parameters.sampler;
    sampler.temperature = 0.5f;
    sampler.top_k = 11;
    sampler.top_p = 0.9f;
    sampler.min_p = 0.1f;
    sampler.seed = static_cast<uint64_t>(-7);
    sampler.repetition_penalty = 1.1f;
    sampler.frequency_penalty = 0.2f;
    sampler.presence_penalty = 0.3f;
    sampler.logit_bias = {{1, 2.5f}, {9, -3.5f}};
    sampler.logprobs = 2;
    sampler.prompt_logprobs = 2;
    log->samples.resize(2);
    return log;
  }

  int64_t Admit(const std::string& id) {
    JournalEvent event;
    event.kind = JournalEvent::Kind::kAdmission;
    event.number = journal_->NewNumber();
    event.admission = Full(id);
    const int64_t number = event.number;
    journal_->Tell(std::move(event));
    return number;
  }

  void Append(int64_t number, int sample, int first,
              const std::vector<int32_t>& tokens) {
    JournalEvent event;
    event.kind = JournalEvent::Kind::kTokens;
    event.number = number;
    event.sample_index = sample;
    event.first = first;
    event.tokens = tokens;
    for (const int32_t token : tokens) {
      event.logprobs.push_back(Logprob(-0.25f * token));
    }
    journal_->Tell(std::move(event));
  }

  void End(int64_t number, int sample, SequenceEnd end) {
    JournalEvent event;
    event.kind = JournalEvent::Kind::kEnd;
    event.number = number;
    event.sample_index = sample;
    event.end = std::move(end);
    journal_->Tell(std::move(event));
  }

  std::string FileBytes() const {
    std::ifstream file(path_, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  void WriteFile(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }

  Journal::Options options_;
  std::string path_;
  JournalImage image_;
  std::unique_ptr<Journal> journal_;
};

TEST_F(JournalTest, GivesBackAllThatItWasTold) {
  Open();
  EXPECT_TRUE(image_.requests.empty());
  const int64_t number = Admit("a");
  journal_->TellEpoch(77);
  JournalEvent prompt;
  prompt.kind = JournalEvent::Kind::kPromptLogprobs;
  prompt.number = number;
  prompt.logprobs = {Logprob(-1), Logprob(-2)};
  journal_->Tell(std::move(prompt));
  Append(number, 1, 0, {8, 9});
  Append(number, 0, 0, {10});
  JournalEvent numerics;
  numerics.kind = JournalEvent::Kind::kNumerics;
  numerics.number = number;
  numerics.sample_index = 1;
  numerics.first = 2;
  numerics.numerics_id = "cpu-1/stored";
  journal_->Tell(std::move(numerics));
  Append(number, 1, 2, {11});
  End(number, 1, {absl::OkStatus(), FinishReason::kLength, -1, 2});
  const int64_t failed = Admit("b");
  End(failed, 0, {absl::InternalError("why")});
  // Twice: what is written anew at the start is the same again.
  for (int i = 0; i < 2; ++i) {
    Open();
    EXPECT_EQ(image_.epoch, 77);
    EXPECT_EQ(image_.last_number, failed);
    EXPECT_EQ(image_.written_at, absl::FromUnixSeconds(1'000'000));
    ASSERT_EQ(image_.requests.size(), 2u);
    const RequestLog& log = image_.requests.at(number);
    const RequestLog full = *Full("a");
    EXPECT_EQ(log.principal, full.principal);
    EXPECT_EQ(log.resume_window, full.resume_window);
    EXPECT_EQ(log.model, full.model);
    EXPECT_EQ(log.model_fingerprint, full.model_fingerprint);
    EXPECT_EQ(log.numerics_id, full.numerics_id);
    ASSERT_EQ(log.samples[1].numerics_changes.size(), 1u);
    EXPECT_EQ(log.samples[1].numerics_changes[0].n_tokens, 2);
    EXPECT_EQ(log.samples[1].numerics_changes[0].numerics_id, "cpu-1/stored");
    EXPECT_EQ(log.changed_at, absl::FromUnixSeconds(1'000'000));
    const CheckedRequest& request = log.request;
    EXPECT_EQ(request.request_id, "a");
    EXPECT_EQ(request.stop_strings, full.request.stop_strings);
    EXPECT_TRUE(request.return_token_ids);
    EXPECT_EQ(request.sample_count, 2);
    EXPECT_EQ(request.echo, "echo");
    EXPECT_EQ(request.seed, -7);
    const SequenceParameters& p = request.parameters;
    const SequenceParameters& q = full.request.parameters;
    EXPECT_EQ(p.prompt, q.prompt);
    EXPECT_EQ(p.stop_token_ids, q.stop_token_ids);
    EXPECT_EQ(p.max_output_tokens, 40);
    EXPECT_EQ(p.min_output_tokens, 3);
    EXPECT_EQ(p.priority, -4);
    EXPECT_EQ(p.deadline, q.deadline);
    EXPECT_EQ(p.sampler.temperature, 0.5f);
    EXPECT_EQ(p.sampler.top_k, 11);
    EXPECT_EQ(p.sampler.top_p, 0.9f);
    EXPECT_EQ(p.sampler.min_p, 0.1f);
    EXPECT_EQ(p.sampler.seed, q.sampler.seed);
    EXPECT_EQ(p.sampler.repetition_penalty, 1.1f);
    EXPECT_EQ(p.sampler.frequency_penalty, 0.2f);
    EXPECT_EQ(p.sampler.presence_penalty, 0.3f);
    EXPECT_EQ(p.sampler.logit_bias, q.sampler.logit_bias);
    EXPECT_EQ(p.sampler.logprobs, 2);
    EXPECT_EQ(p.sampler.prompt_logprobs, 2);
    ASSERT_EQ(log.prompt_logprobs.size(), 2u);
    EXPECT_EQ(log.prompt_logprobs[1].logprob, -2);
    EXPECT_EQ(log.prompt_logprobs[1].alternatives, Logprob(-2).alternatives);
    ASSERT_EQ(log.samples.size(), 2u);
    EXPECT_THAT(log.samples[0].tokens, ElementsAre(10));
    EXPECT_FALSE(log.samples[0].end.has_value());
    EXPECT_THAT(log.samples[1].tokens, ElementsAre(8, 9, 11));
    ASSERT_EQ(log.samples[1].logprobs.size(), 3u);
    EXPECT_EQ(log.samples[1].logprobs[2].logprob, -0.25f * 11);
    ASSERT_TRUE(log.samples[1].end.has_value());
    EXPECT_TRUE(log.samples[1].end->status.ok());
    EXPECT_EQ(log.samples[1].end->reason, FinishReason::kLength);
    EXPECT_EQ(log.samples[1].end->stop_token_id, -1);
    EXPECT_EQ(log.samples[1].end->n_prompt_cached, 2);
    EXPECT_FALSE(log.HasEnded());
    EXPECT_TRUE(image_.requests.at(failed).HasEnded());
    EXPECT_EQ(image_.requests.at(failed).samples[0].end->status,
              absl::InternalError("why"));
  }
  EXPECT_GT(journal_->NewNumber(), failed);
}

TEST_F(JournalTest, WhatIsForgottenIsGoneAndItsLateTokensAreNoMistake) {
  Open();
  const int64_t number = Admit("a");
  journal_->Forget(number);
  Append(number, 0, 0, {1});
  End(number, 0, {});
  Open();
  EXPECT_TRUE(image_.requests.empty());
}

TEST_F(JournalTest, TokensBehindAGapOrAnEndAreLeftOut) {
  Open();
  const int64_t number = Admit("a");
  Append(number, 0, 0, {1, 2});
  Append(number, 0, 3, {4});
  Append(number, 1, 0, {1});
  End(number, 1, {});
  Append(number, 1, 1, {2});
  Open();
  EXPECT_THAT(image_.requests.at(number).samples[0].tokens, ElementsAre(1, 2));
  EXPECT_THAT(image_.requests.at(number).samples[1].tokens, ElementsAre(1));
}

TEST_F(JournalTest, TheFileAndItsFolderAreForTheirOwnerAlone) {
  Open();
  struct stat file;
  ASSERT_EQ(stat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
  ASSERT_EQ(stat(options_.folder.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0700u);
}

TEST_F(JournalTest, TheFileIsWrittenAnewWhenMostOfItIsForgotten) {
  options_.rewrite_bytes_min = 20'000;
  options_.sync = Journal::Sync::kBatch;
  Open();
  const int64_t kept = Admit("kept");
  Append(kept, 0, 0, {1, 2, 3});
  for (int i = 0; i < 300; ++i) {
    const int64_t number = Admit(absl::StrCat("r", i));
    Append(number, 0, 0, std::vector<int32_t>(40, i));
    journal_->Forget(number);
    journal_->Flush();
  }
  EXPECT_LT(journal_->health().n_bytes, 25'000);
  EXPECT_TRUE(journal_->health().is_writing) << journal_->health().problem;
  Open();
  ASSERT_EQ(image_.requests.size(), 1u);
  EXPECT_THAT(image_.requests.at(kept).samples[0].tokens, ElementsAre(1, 2, 3));
}

TEST_F(JournalTest, IsGivenUpAtItsSizeLimit) {
  options_.bytes_max = 20'000;
  Open();
  for (int i = 0; i < 100; ++i) {
    Append(Admit(absl::StrCat("r", i)), 0, 0, std::vector<int32_t>(40, i));
    journal_->Flush();
  }
  const Journal::Health health = journal_->health();
  EXPECT_FALSE(health.is_writing);
  EXPECT_GT(health.n_lost_events, 0);
  EXPECT_LT(health.n_bytes, 25'000);
  EXPECT_THAT(health.problem, HasSubstr("--journal_max_bytes"));
}

TEST_F(JournalTest, IsGivenUpWhenTheDiskIsFull) {
  bool is_full = false;
  absl::Mutex mu;
  options_.write = [&](int fd, const void* data, size_t size) -> ssize_t {
    absl::MutexLock lock(&mu);
    if (!is_full) return ::write(fd, data, size);
    errno = ENOSPC;
    return -1;
  };
  Open();
  const int64_t number = Admit("a");
  journal_->Flush();
  {
    absl::MutexLock lock(&mu);
    is_full = true;
  }
  Append(number, 0, 0, {1});
  journal_->Flush();
  Append(number, 0, 1, {2});
  journal_->Flush();
  const Journal::Health health = journal_->health();
  EXPECT_FALSE(health.is_writing);
  EXPECT_EQ(health.n_lost_events, 2);
  EXPECT_THAT(health.problem, HasSubstr("No space left"));
  {
    absl::MutexLock lock(&mu);
    is_full = false;
  }
  Open();
  EXPECT_TRUE(image_.requests.at(number).samples[0].tokens.empty());
}

TEST_F(JournalTest, NobodyWaitsForADiskThatHangs) {
  absl::Notification hangs, go_on;
  options_.queue_capacity = 10;
  bool first = true;
  options_.write = [&](int fd, const void* data, size_t size) {
    if (!first) {
      if (!hangs.HasBeenNotified()) hangs.Notify();
      go_on.WaitForNotification();
    }
    first = false;
    return ::write(fd, data, size);
  };
  Open();
  const int64_t number = Admit("a");
  hangs.WaitForNotification();
  // Returns, although nothing is written.
  for (int i = 0; i < 20; ++i) Append(number, 0, i, {i});
  EXPECT_FALSE(journal_->health().is_writing);
  EXPECT_THAT(journal_->health().problem, HasSubstr("does not keep up"));
  go_on.Notify();
  journal_->Flush();
  EXPECT_GE(journal_->health().n_lost_events, 10);
}

TEST_F(JournalTest, ATornTailIsCutOffAndDamageBeforeItIsRefused) {
  Open();
  const int64_t number = Admit("a");
  journal_->Flush();
  Append(number, 0, 0, {1, 2});
  journal_.reset();
  const std::string whole = FileBytes();
  WriteFile(whole.substr(0, whole.size() - 3));
  Open();
  EXPECT_TRUE(image_.requests.at(number).samples[0].tokens.empty());
  Append(number, 0, 0, {1, 2});
  Open();
  EXPECT_THAT(image_.requests.at(number).samples[0].tokens, ElementsAre(1, 2));
  journal_.reset();
  std::string damaged = whole;
  damaged[30] ^= 1;
  WriteFile(damaged);
  const absl::Status status = Journal::Open(options_, &image_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  // Nothing was lost by looking.
  EXPECT_EQ(FileBytes(), damaged);
}

// Records whose checksums are right and whose content is not: from another
// release, or a fault of ours.
TEST_F(JournalTest, AnyPayloadGivesAnImageOrAnError) {
  Open();
  const int64_t number = Admit("a");
  Append(number, 0, 0, {1, 2, 3});
  End(number, 0, {});
  Open();
  std::vector<std::string> records = EncodeImage(image_);
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  int n_refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    JournalImage image;
    for (std::string record : records) {
      for (int i = random() % 3; i > 0 && !record.empty(); --i) {
        record[random() % record.size()] = static_cast<char>(random());
      }
      if (!ApplyRecord(record, &image).ok()) ++n_refused;
    }
    for (const auto& [number, log] : image.requests) {
      ASSERT_FALSE(log.request.parameters.prompt.empty());
      ASSERT_EQ(static_cast<int>(log.samples.size()), log.request.sample_count);
      for (const RequestLog::Sample& sample : log.samples) {
        ASSERT_LE(static_cast<int>(sample.tokens.size()),
                  log.request.parameters.max_output_tokens);
      }
    }
    // What was taken can be written again.
    JournalImage again;
    for (const std::string& record : EncodeImage(image)) {
      ASSERT_TRUE(ApplyRecord(record, &again).ok());
    }
  }
  EXPECT_GT(n_refused, 0);
}

TEST_F(JournalTest, SaysWhereItCannotWrite) {
  options_.folder = "/proc/none";
  const absl::Status status = Journal::Open(options_, &image_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("--journal_dir"));
}

}  // namespace
}  // namespace tern
