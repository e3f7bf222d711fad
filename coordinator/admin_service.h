#ifndef COORDINATOR_ADMIN_SERVICE_H_
#define COORDINATOR_ADMIN_SERVICE_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/model_instance.h"
#include "coordinator/operator_state_proto.h"
#include "coordinator/service_context.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "proto/tern/v1/admin.grpc.pb.h"
#include "proto/tern/v1/admin.pb.h"
#include "util/bounded_queue.h"

namespace tern {

// Answers the operators' calls. Reading a model and ending one take a while:
// they are done one after the other on a thread of this service. Thread-safe.
class AdminServiceImpl : public v1::AdminService::CallbackService {
 public:
  struct Options {
    // Where LoadModel finds files. Empty: it takes none.
    std::string models_dir;
    // What LoadModel takes where a request says nothing; its path and name mean
    // nothing here.
    ModelSpec defaults;
    // Reads a model and starts its engine.
    std::function<absl::StatusOr<std::shared_ptr<ModelInstance>>(
        const ModelSpec&)>
        open;
  };

  // What `context` points to outlives it.
  AdminServiceImpl(const ServiceContext& context, Options options);

  // Does what was begun, and ends the rest with UNAVAILABLE. After the server.
  ~AdminServiceImpl() override;

  // Loads the models that an earlier coordinator was told to. One that cannot
  // be loaded is named in the log, and stays remembered. Before the server.
  void Restore();

  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* call,
                                      const v1::LoadModelRequest* request,
                                      v1::LoadModelResponse* response) override;
  grpc::ServerUnaryReactor* UnloadModel(
      grpc::CallbackServerContext* call, const v1::UnloadModelRequest* request,
      v1::UnloadModelResponse* response) override;
  grpc::ServerUnaryReactor* CordonWorker(
      grpc::CallbackServerContext* call, const v1::CordonWorkerRequest* request,
      v1::CordonWorkerResponse* response) override;

 private:
  // Whether the caller may; its error is the answer.
  absl::Status CheckOperator(grpc::CallbackServerContext* call) const;
  absl::StatusOr<ModelSpec> SpecOf(const v1::LoadModelRequest& request) const;
  // Reads the model and begins to serve it, under `name`.
  absl::Status Serve(const v1::LoadModelRequest& request, std::string* name);
  absl::Status Load(const v1::LoadModelRequest& request,
                    v1::LoadModelResponse* response);
  // Whether the next coordinator would load it.
  bool IsRemembered(const std::string& name) const;
  // Has the next coordinator know; waits for the disk. OK without a journal.
  absl::Status Remember(std::function<void(OperatorState*)> change);
  absl::Status Unload(const v1::UnloadModelRequest& request,
                      v1::UnloadModelResponse* response);
  // Has `task` done on the thread, and finishes the call with what it returns.
  grpc::ServerUnaryReactor* Enqueue(grpc::CallbackServerContext* call,
                                    std::function<absl::Status()> task);

  const ServiceContext context_;
  const Options options_;
  BoundedQueue<std::function<void()>> tasks_;
  std::thread thread_;
};

}  // namespace tern

#endif  // COORDINATOR_ADMIN_SERVICE_H_
