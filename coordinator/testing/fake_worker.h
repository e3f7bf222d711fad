#ifndef COORDINATOR_TESTING_FAKE_WORKER_H_
#define COORDINATOR_TESTING_FAKE_WORKER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/testing/toy_model.h"
#include "grpcpp/server.h"
#include "grpcpp/server_context.h"
#include "proto/tern/v1/worker.grpc.pb.h"

namespace tern {

// A worker with a real gRPC port on 127.0.0.1 that runs the toy model in place
// of a stage. It checks each plan against the rules and ends the stream when
// one is broken.
class FakeWorker : public v1::WorkerService::Service {
 public:
  // `vocab_size`: the toy model samples tokens in [0, vocab_size).
  FakeWorker(std::string worker_id, std::string model, int vocab_size);
  ~FakeWorker() override;

  // Makes itself known to the coordinator at `address`, as a new process.
  absl::Status Register(const std::string& address);

  // Answers no step while held.
  void Hold() ABSL_LOCKS_EXCLUDED(mu_);
  void Release() ABSL_LOCKS_EXCLUDED(mu_);

  // Ends the stream of steps, as if the process had died. Waits for it to
  // begin.
  void BreakStream() ABSL_LOCKS_EXCLUDED(mu_);

  // Answers LoadStage with this status.
  void FailLoading(absl::Status status) ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until it holds exactly `n` sequences. False after a long time.
  bool AwaitSequences(int n) ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until it holds one or more.
  bool AwaitAnySequence() ABSL_LOCKS_EXCLUDED(mu_);

  // Waits until the coordinator has loaded a stage `n` times.
  bool AwaitLoads(int n) ABSL_LOCKS_EXCLUDED(mu_);

  int n_blocks_in_use() ABSL_LOCKS_EXCLUDED(mu_);

  // What the coordinator asked for last.
  v1::LoadStageRequest stage() ABSL_LOCKS_EXCLUDED(mu_);

  // Rows so far whose token an earlier step samples.
  int n_rows_ahead() ABSL_LOCKS_EXCLUDED(mu_);

  // Where it listens.
  std::string address() const;

  // The rule that was broken, or empty.
  std::string broken_rule() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  grpc::Status LoadStage(
      grpc::ServerContext* context, const v1::LoadStageRequest* request,
      grpc::ServerWriter<v1::LoadStageResponse>* writer) override;
  grpc::Status ExecuteSteps(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::StepResult, v1::StepPlan>* stream) override;

  const std::string worker_id_;
  const std::string model_;
  const int vocab_size_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;

  absl::Mutex mu_;
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  bool breaking_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status load_status_ ABSL_GUARDED_BY(mu_);
  v1::LoadStageRequest stage_ ABSL_GUARDED_BY(mu_);
  int n_loads_ ABSL_GUARDED_BY(mu_) = 0;
  int n_rows_ahead_ ABSL_GUARDED_BY(mu_) = 0;
  std::unique_ptr<ToyWorker> toy_ ABSL_GUARDED_BY(mu_);
  grpc::ServerContext* stream_context_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::string broken_rule_ ABSL_GUARDED_BY(mu_);
};

}  // namespace tern

#endif  // COORDINATOR_TESTING_FAKE_WORKER_H_
