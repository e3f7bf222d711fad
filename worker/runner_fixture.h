#ifndef WORKER_RUNNER_FIXTURE_H_
#define WORKER_RUNNER_FIXTURE_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/head.h"
#include "kernels/kernels.h"
#include "model/model_config.h"
#include "model/model_source.h"
#include "tests/testing/tiny_model.h"
#include "util/clock.h"
#include "util/crc32c.h"
#include "util/logging.h"
#include "worker/hidden_states_inbox.h"
#include "worker/kv_cache.h"
#include "worker/runner.h"
#include "worker/sampled_tokens_inbox.h"
#include "worker/sampler.h"
#include "worker/stage.h"
#include "worker/stage_link.h"
#include "worker/stage_links.h"
#include "worker/stage_weights.h"
#include "worker/step.h"
#include "worker/step_mailbox.h"
#include "worker/thread_pool.h"

// A runner with the stage of a tiny model, and neighbours that the test plays.

namespace tern {

inline constexpr int kHidden = 64;

// Collects what the runner says.
class FakeSink : public StepSink {
 public:
  void OnResult(StepResult result) override {
    absl::MutexLock lock(&mu_);
    results_.push_back(std::move(result));
  }
  void OnEnd(absl::Status status) override {
    absl::MutexLock lock(&mu_);
    ended_ = true;
    end_ = std::move(status);
  }

  StepResult WaitForResult(size_t i) {
    absl::MutexLock lock(&mu_);
    const auto has = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return results_.size() > i || ended_;
    };
    mu_.Await(absl::Condition(&has));
    CHECK(results_.size() > i) << end_.ToString();
    return results_[i];
  }
  absl::Status WaitForEnd() {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&ended_));
    return end_;
  }
  size_t result_count() {
    absl::MutexLock lock(&mu_);
    return results_.size();
  }

 private:
  absl::Mutex mu_;
  std::vector<StepResult> results_ ABSL_GUARDED_BY(mu_);
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mu_);
};

// Keeps what is sent; read it after the runner has ended.
class FakeLink : public StageLink {
 public:
  absl::Status Send(int64_t step_id, absl::Span<const float> hidden) override {
    if (!fail_with.ok()) return fail_with;
    step_ids.push_back(step_id);
    sent.emplace_back(hidden.begin(), hidden.end());
    return absl::OkStatus();
  }
  void Finish() override { finished = true; }
  void Close() override { closed = true; }

  absl::Status fail_with;
  std::vector<int64_t> step_ids;
  std::vector<std::vector<float>> sent;
  std::atomic<bool> finished{false};
  std::atomic<bool> closed{false};
};

// Keeps what is sent; read it after the runner has ended.
class FakeTokenLink : public TokenLink {
 public:
  absl::Status Send(int64_t step_id,
                    absl::Span<const SampledToken> sampled) override {
    if (!fail_with.ok()) return fail_with;
    step_ids.push_back(step_id);
    sent.emplace_back(sampled.begin(), sampled.end());
    return absl::OkStatus();
  }
  void Finish() override { finished = true; }
  void Close() override { closed = true; }

  absl::Status fail_with;
  std::vector<int64_t> step_ids;
  std::vector<std::vector<SampledToken>> sent;
  std::atomic<bool> finished{false};
  std::atomic<bool> closed{false};
};

class RunnerFixture : public ::testing::Test {
 protected:
  RunnerFixture() : pool_(2) {
    testing::TinyModelOptions options;
    options.hidden_size = kHidden;
    bytes_ = testing::TinyModelBytes(options);
    auto source = ModelSource::FromGguf(bytes_);
    CHECK(source.ok()) << source.status().ToString();
    source_ = std::move(source).value();
    config_ = source_->config();
  }

  ~RunnerFixture() override {
    if (runner_ != nullptr) mailbox_->Abort(absl::CancelledError("test over"));
  }

  // One of two stages, or both.
  void Start(bool is_first, bool is_last,
             absl::Duration timeout = absl::Seconds(60),
             bool keeps_boundary = false) {
    StageSpec spec;
    spec.range = {is_first ? 0 : 1, is_first && !is_last ? 1 : 2, is_first,
                  is_last};
    spec.head_mode = HeadMode::kInt8;
    auto weights = LoadStageWeights(
        source_, spec, &pool_, [](int64_t, int64_t) {}, [] { return false; });
    CHECK(weights.ok()) << weights.status().ToString();
    weights_ = *weights;
    auto kv =
        KvCache::Create({spec.range.layer_end - spec.range.layer_begin,
                         config_.n_kv_heads, config_.head_dim, 8,
                         config_.context_length, keeps_boundary ? kHidden : 0});
    CHECK(kv.ok()) << kv.status().ToString();
    kv_ = std::move(kv).value();
    stage_ = std::make_unique<Stage>(*weights, kv_.get(), &pool_,
                                     &BestKernels(), 64);
    StageLinks links;
    links.index = is_first ? 0 : 1;
    if (!is_first) {
      HiddenStatesInbox::Options options;
      options.hidden_size = kHidden;
      options.max_step_tokens = 64;
      links.in.hidden = inbox_ = std::make_shared<HiddenStatesInbox>(options);
    } else if (!is_last) {
      SampledTokensInbox::Options options;
      options.vocab_size = config_.vocab_size;
      options.max_step_tokens = 64;
      options.waiting_steps_max = 2;
      links.in.tokens = tokens_ = std::make_shared<SampledTokensInbox>(options);
    }
    if (!is_last) {
      links.out.next = link_ = std::make_shared<FakeLink>();
    } else if (!is_first) {
      links.out.first = token_link_ = std::make_shared<FakeTokenLink>();
    }
    mailbox_ = std::make_shared<StepMailbox>(
        16, [links](const absl::Status& status) { links.Close(status); });
    sink_ = std::make_shared<FakeSink>();
    CHECK(mailbox_->Attach(sink_).ok());
    Runner::Options options;
    options.hidden_states_timeout = timeout;
    runner_ = std::make_unique<Runner>(options, stage_.get(), kv_.get(), &pool_,
                                       mailbox_, links, Clock::System(),
                                       &finished_steps_);
  }

  static StepRow Row(int64_t id, int32_t position, std::vector<int32_t> tokens,
                     std::vector<int32_t> blocks, bool samples = true) {
    return {id, position, std::move(tokens), std::move(blocks), samples};
  }
  // Blocks that only these stages have lost.
  static StepRow Refill(int64_t id, int32_t position,
                        std::vector<int32_t> tokens,
                        std::vector<int32_t> blocks, int begin, int end) {
    StepRow row =
        Row(id, position, std::move(tokens), std::move(blocks), false);
    row.computing_begin = begin;
    row.computing_end = end;
    return row;
  }
  // One token, which the sequence samples in that step.
  static StepRow RowAfter(int64_t step_id, int64_t id, int32_t position) {
    StepRow row = Row(id, position, {0}, {});
    row.sampled_in_step_id = step_id;
    return row;
  }
  void Push(StepPlan plan) {
    const absl::Status status = mailbox_->Push(std::move(plan));
    EXPECT_TRUE(status.ok()) << status;
  }
  void Receive(int64_t step_id, const std::vector<float>& values) {
    HiddenStatesSlice slice;
    slice.step_id = step_id;
    slice.n_tokens = static_cast<int64_t>(values.size()) / kHidden;
    slice.hidden_size = kHidden;
    slice.offset_bytes = 0;
    slice.total_bytes = static_cast<int64_t>(values.size() * sizeof(float));
    slice.data =
        absl::MakeConstSpan(reinterpret_cast<const char*>(values.data()),
                            values.size() * sizeof(float));
    slice.crc32c = Crc32c(slice.data.data(), slice.data.size());
    EXPECT_TRUE(inbox_->Offer(slice, [] {}).ok());
  }

  void ReceiveTokens(int64_t step_id, std::vector<SequenceToken> tokens) {
    const auto taken =
        tokens_->Offer({step_id, std::move(tokens)}, [] { FAIL(); });
    EXPECT_TRUE(taken.ok() && *taken) << taken.status();
  }

  ThreadPool pool_;
  testing::Bytes bytes_;
  std::shared_ptr<const ModelSource> source_;
  ModelConfig config_;
  std::shared_ptr<const StageWeights> weights_;
  std::unique_ptr<KvCache> kv_;
  std::unique_ptr<Stage> stage_;
  std::shared_ptr<HiddenStatesInbox> inbox_;
  std::shared_ptr<SampledTokensInbox> tokens_;
  std::shared_ptr<FakeLink> link_;
  std::shared_ptr<FakeTokenLink> token_link_;
  std::shared_ptr<StepMailbox> mailbox_;
  std::shared_ptr<FakeSink> sink_;
  std::atomic<int64_t> finished_steps_{0};
  std::unique_ptr<Runner> runner_;
};

}  // namespace tern

#endif  // WORKER_RUNNER_FIXTURE_H_
