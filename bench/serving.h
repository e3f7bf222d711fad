#ifndef BENCH_SERVING_H_
#define BENCH_SERVING_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/load_generator.h"
#include "bench/serve_report.h"
#include "bench/workload.h"
#include "client/cancellation.h"
#include "client/client.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// A cluster, and the load to measure it under.
struct ServingOptions {
  ClientOptions connection;
  std::string model;                        // empty: the cluster's only one
  absl::Duration wait = absl::Seconds(60);  // for a cluster that is loading
  pid_t coordinator_pid = 0;                // for its CPU time; 0: do not
  LoadOptions load;                         // on_begin and on_end are set here
  WorkloadOptions workload;  // but for the model, which the cluster describes
};

// Waits until the model takes requests and says what it is, with its pipelines.
absl::StatusOr<v1::Model> AwaitModel(const ClientOptions& connection,
                                     const std::string& model,
                                     absl::Duration wait,
                                     Cancellation* cancellation);

// Waits for the model, sends the load and reports; Ctrl-C ends it early, with
// what was counted. INVALID_ARGUMENT when the workload does not suit the model.
absl::StatusOr<ServeReport> MeasureServing(ServingOptions options,
                                           Cancellation* cancellation);

// Adds what LocalServers::Stop() returned.
absl::Status AddStages(const std::string& json, ServeReport* report);

}  // namespace tern

#endif  // BENCH_SERVING_H_
