#ifndef WORKER_WORKER_H_
#define WORKER_WORKER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "blob/blob_service.h"
#include "blob/hash_memory.h"
#include "grpcpp/server.h"
#include "util/credentials.h"
#include "worker/fetching_host.h"
#include "worker/model_cache.h"
#include "worker/registration.h"
#include "worker/runner.h"
#include "worker/slowdown.h"
#include "worker/stage_host.h"
#include "worker/weight_fetcher.h"
#include "worker/worker_service.h"

namespace tern {

// A worker: one stage of a pipeline behind a gRPC server, registered with a
// coordinator. Thread-safe.
class Worker {
 public:
  struct Options {
    // "host:port"; port 0 takes a free one.
    std::string listen = "127.0.0.1:0";
    // At which others reach the worker; empty derives it from `listen` (and the
    // machine's name, where that names no address).
    std::string advertise_address;
    // Address of the coordinator, or of several, separated by commas, of which
    // one serves at a time; empty serves without one, for tests.
    std::string coordinator;
    // Files of models, and their names in the cluster; an empty name is the
    // file's without folder and extension. One is served at a time. None where
    // there is a cache.
    struct ModelFile {
      std::string path;
      std::string name;
    };
    std::vector<ModelFile> models;
    // Empty derives it from the machine's name and the process.
    std::string worker_id;
    // Compute threads; 0 is all that the process may use.
    int n_threads = 0;
    // Whether they are bound to processors: "auto", "on" or "off", see
    // worker/thread_placement.h.
    std::string pin = "auto";
    // Bytes that weights and KV pool may take together; 0 is 80 % of what is
    // available now.
    int64_t memory_bytes = 0;
    // "auto" or the name of an instruction set, see kernels/isa.h.
    std::string isa = "auto";
    // "auto" or the name of a packing, see kernels/ternary_layout.h.
    std::string weights_packing = "2bit";
    // Whether to measure at the start how long stages of the model take here.
    bool measure_step_times = true;
    // Bytes a second to other stages; 0 for no limit known.
    double link_bytes_per_second = 0;
    // Into which weights are fetched; an empty folder for no cache.
    ModelCache::Options cache;
    FetchOptions fetch;
    // Of what this worker holds, to others.
    BlobServiceImpl::Options blobs;
    CredentialOptions credentials;
    Registration::Options registration;
    Runner::Options runner;
  };

  // Opens and checks the model file, starts the server, begins to register.
  // INVALID_ARGUMENT for senseless options, else as ModelSource::Open()
  // and Credentials say; UNAVAILABLE when the port is taken.
  static absl::StatusOr<std::unique_ptr<Worker>> Create(const Options& options);

  // Shutdown().
  ~Worker();

  // At which the server listens.
  int port() const { return port_; }
  // Given to the coordinator.
  const std::string& address() const { return address_; }

  // What heartbeats tell; see cluster.proto.
  int64_t progress() const { return host_->progress(); }

  // Lets what runs on this worker move to others, or end, and waits for that up
  // to `timeout`. It goes on serving until Shutdown().
  void Drain(absl::Duration timeout);

  // Ends streams, computation and registration, and waits for them. Later calls
  // do nothing.
  void Shutdown();

 private:
  Worker() = default;
  absl::Status Start(const Options& options);

  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<Slowdown> slowdown_;
  std::unique_ptr<HashMemory> hash_memory_;
  std::unique_ptr<ModelCache> cache_;
  std::unique_ptr<FetchingHost> host_;
  std::unique_ptr<WorkerServiceImpl> service_;
  std::unique_ptr<BlobServiceImpl> blob_service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Registration> registration_;
  int port_ = 0;
  std::string address_;
};

}  // namespace tern

#endif  // WORKER_WORKER_H_
