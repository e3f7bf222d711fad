// Workers come and go as operators have them do it, under load: no stream is
// lost or changed, and what comes is used.

#include <signal.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/inference.pb.h"
#include "tests/integration/local_cluster.h"

namespace tern {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(120);

v1::GenerateRequest Request(int kind, int max_tokens) {
  v1::GenerateRequest request;
  request.set_text(absl::StrCat("ACT ", kind, ". SCENE ", kind + 1, ".\n"));
  request.mutable_sampling()->set_temperature(0.8f);
  request.mutable_sampling()->set_seed(kind);
  request.mutable_stopping()->set_max_output_tokens(max_tokens);
  request.mutable_stopping()->set_ignore_end_of_sequence(true);
  return request;
}

// The answer, or what went wrong.
std::string Ask(LocalCluster& cluster, const v1::GenerateRequest& request) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::GenerateResponse response;
  const grpc::Status status =
      cluster.inference().Generate(&context, request, &response);
  return status.ok() ? response.candidates(0).text()
                     : absl::StrCat("status ", status.error_code(), ": ",
                                    status.error_message());
}

v1::Model Model(LocalCluster& cluster) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  v1::GetModelResponse response;
  EXPECT_TRUE(cluster.inference().GetModel(&context, {}, &response).ok());
  return response.model();
}

// Waits until the model satisfies `is_so`.
template <typename Predicate>
void Await(LocalCluster& cluster, Predicate is_so) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (!is_so(Model(cluster))) {
    if (absl::Now() < deadline) continue;
    ADD_FAILURE() << "did not come to be\n" << cluster.Logs();
    return;
  }
}

int NumReady(const v1::Model& model) {
  int n = 0;
  for (const v1::Pipeline& pipeline : model.pipelines()) {
    n += pipeline.state() == v1::PIPELINE_STATE_READY;
  }
  return n;
}

// Clients that ask one thing after the other, and compare each answer with that
// of a quiet cluster.
class Load {
 public:
  Load(LocalCluster* cluster, int n_clients, int max_tokens)
      : cluster_(cluster) {
    for (int kind = 0; kind < n_clients; ++kind) {
      expected_.push_back(Ask(*cluster, Request(kind, max_tokens)));
      EXPECT_EQ(expected_.back().rfind("status", 0), std::string::npos)
          << expected_.back();
    }
    for (int kind = 0; kind < n_clients; ++kind) {
      clients_.emplace_back([this, kind, max_tokens] {
        while (!stopping_) {
          const std::string answer = Ask(*cluster_, Request(kind, max_tokens));
          ++n_answers_;
          if (answer != expected_[kind]) AddFailure(answer);
        }
      });
    }
  }
  ~Load() { Stop(); }

  void Stop() ABSL_LOCKS_EXCLUDED(mu_) {
    stopping_ = true;
    for (std::thread& client : clients_) client.join();
    clients_.clear();
    absl::MutexLock lock(&mu_);
    EXPECT_EQ(failures_, std::vector<std::string>());
  }

  // Waits for as many answers more.
  void AwaitAnswers(int n) {
    const int goal = n_answers_ + n;
    const absl::Time deadline = absl::Now() + kPatience;
    while (n_answers_ < goal && absl::Now() < deadline)
      std::this_thread::yield();
    EXPECT_GE(n_answers_, goal) << cluster_->Logs();
  }

 private:
  void AddFailure(const std::string& answer) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    failures_.push_back(answer);
  }

  LocalCluster* const cluster_;
  std::vector<std::string> expected_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> n_answers_{0};
  absl::Mutex mu_;
  std::vector<std::string> failures_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> clients_;
};

TEST(RollingUpgrade, EveryWorkerIsReplacedUnderLoad) {
  for (const int n_stages : {1, 2}) {
    LocalCluster::Options options;
    options.stages = n_stages;
    options.workers = 2 * n_stages;
    auto started = LocalCluster::Start(options);
    ASSERT_TRUE(started.ok()) << started.status();
    LocalCluster& cluster = **started;
    Await(cluster, [](const v1::Model& model) { return NumReady(model) == 2; });
    Load load(&cluster, 6, 120);
    for (int i = 0; i < options.workers; ++i) {
      load.AwaitAnswers(6);
      cluster.worker(i).Signal(SIGTERM);
      auto code = cluster.worker(i).Wait(kPatience);
      ASSERT_TRUE(code.ok()) << code.status();
      EXPECT_EQ(*code, 0);
      ASSERT_TRUE(cluster.StartWorker(i).ok());
      Await(cluster,
            [](const v1::Model& model) { return NumReady(model) == 2; });
    }
    load.AwaitAnswers(6);
    load.Stop();
  }
}

TEST(HotJoin, AWorkerThatComesTakesItsShare) {
  LocalCluster::Options options;
  options.coordinator_flags = {"--max_sequences=2"};
  auto started = LocalCluster::Start(options);
  ASSERT_TRUE(started.ok()) << started.status();
  LocalCluster& cluster = **started;
  Load load(&cluster, 8, 200);
  load.AwaitAnswers(4);
  ASSERT_TRUE(cluster.StartWorker(1).ok());
  Await(cluster, [](const v1::Model& model) {
    return NumReady(model) == 2 && model.pipelines(0).running_count() == 2 &&
           model.pipelines(1).running_count() == 2;
  });
  load.AwaitAnswers(8);
  load.Stop();
}

}  // namespace
}  // namespace tern
