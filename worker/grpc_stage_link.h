#ifndef WORKER_GRPC_STAGE_LINK_H_
#define WORKER_GRPC_STAGE_LINK_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/channel.h"
#include "worker/stage_link.h"

namespace tern {

// A stage link over a TransferHiddenStates stream. Thread-safe.
class GrpcStageLink : public StageLink {
 public:
  struct Options {
    // Sent with every slice.
    std::string model;
    std::string pipeline_id;
    int64_t epoch = 0;
    int hidden_size = 0;

    // Where the next stage is, for messages.
    std::string address;
    // Largest slice; must be > 0.
    int slice_bytes = 1 << 20;
    // Slices that wait to be written; must be > 0.
    int waiting_slices_max = 32;
    // How long Send() waits for room.
    absl::Duration send_timeout = absl::Seconds(60);
  };

  // Opens the stream, without waiting for the peer.
  GrpcStageLink(const Options& options, std::shared_ptr<grpc::Channel> channel);
  ~GrpcStageLink() override;

  absl::Status Send(int64_t step_id, absl::Span<const float> hidden) override;
  void Finish() override;
  void Close() override;

 private:
  class Stream;

  const Options options_;
  // The stream outlives the link until gRPC is done with it.
  const std::shared_ptr<Stream> stream_;
};

}  // namespace tern

#endif  // WORKER_GRPC_STAGE_LINK_H_
