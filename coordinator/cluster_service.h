#ifndef COORDINATOR_CLUSTER_SERVICE_H_
#define COORDINATOR_CLUSTER_SERVICE_H_

#include "coordinator/service_context.h"
#include "proto/tern/v1/cluster.grpc.pb.h"

namespace tern {

// The control plane, see cluster.proto. Thread-safe.
class ClusterServiceImpl : public v1::ClusterService::CallbackService {
 public:
  explicit ClusterServiceImpl(const ServiceContext& context)
      : context_(context) {}

  grpc::ServerUnaryReactor* RegisterWorker(
      grpc::CallbackServerContext* call,
      const v1::RegisterWorkerRequest* request,
      v1::RegisterWorkerResponse* response) override;
  grpc::ServerUnaryReactor* SendHeartbeat(
      grpc::CallbackServerContext* call,
      const v1::SendHeartbeatRequest* request,
      v1::SendHeartbeatResponse* response) override;
  grpc::ServerUnaryReactor* ListWorkers(
      grpc::CallbackServerContext* call, const v1::ListWorkersRequest* request,
      v1::ListWorkersResponse* response) override;

 private:
  const ServiceContext context_;
};

}  // namespace tern

#endif  // COORDINATOR_CLUSTER_SERVICE_H_
