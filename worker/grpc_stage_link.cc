#include "worker/grpc_stage_link.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "proto/tern/v1/tensor.pb.h"
#include "proto/tern/v1/worker.grpc.pb.h"
#include "proto/tern/v1/worker.pb.h"
#include "util/crc32c.h"
#include "util/message_checksum.h"
#include "util/status_macros.h"
#include "worker/transfer_stream.h"

namespace tern {
namespace {

// Largest slice of hidden states.
constexpr size_t kSliceBytesMax = 1 << 20;

// Messages of a stream that wait to be written.
constexpr int kWaitingMessagesMax = 32;

// How long Send() waits for room.
constexpr absl::Duration kSendTimeout = absl::Seconds(60);

std::shared_ptr<v1::WorkerService::Stub> NewStub(
    std::shared_ptr<grpc::Channel> channel) {
  return v1::WorkerService::NewStub(std::move(channel));
}

// What every message begins with.
template <typename Request>
Request NewRequest(const StageRequest& stage, int64_t step_id) {
  Request request;
  request.set_model(stage.model);
  request.set_pipeline_id(stage.pipeline_id);
  request.set_epoch(stage.epoch);
  request.set_step_id(step_id);
  return request;
}

// A stage link over a TransferHiddenStates stream.
class GrpcStageLink : public StageLink {
 public:
  // Opens the stream, without waiting for the peer.
  GrpcStageLink(StageRequest stage, int hidden_size,
                std::shared_ptr<grpc::Channel> channel)
      : stage_(std::move(stage)),
        hidden_size_(hidden_size),
        // The stream outlives the link until gRPC is done with it.
        stream_(Stream::Start(
            absl::StrCat("the next stage at ", stage_.next_stage_address),
            "hidden states", kWaitingMessagesMax,
            [stub = NewStub(std::move(channel))](auto* context, auto* response,
                                                 auto* reactor) {
              stub->async()->TransferHiddenStates(context, response, reactor);
            })) {}

  ~GrpcStageLink() override { stream_->Close(); }

  absl::Status Send(int64_t step_id, absl::Span<const float> hidden) override;
  void Finish() override { stream_->Finish(); }
  void Close() override { stream_->Close(); }

 private:
  using Stream = TransferStream<v1::TransferHiddenStatesRequest,
                                v1::TransferHiddenStatesResponse>;

  const StageRequest stage_;
  const int hidden_size_;
  const std::shared_ptr<Stream> stream_;
};

absl::Status GrpcStageLink::Send(int64_t step_id,
                                 absl::Span<const float> hidden) {
  const char* const bytes = reinterpret_cast<const char*>(hidden.data());
  const size_t total = hidden.size() * sizeof(float);
  for (size_t offset = 0; offset < total; offset += kSliceBytesMax) {
    const size_t size = std::min<size_t>(kSliceBytesMax, total - offset);
    auto request = NewRequest<v1::TransferHiddenStatesRequest>(stage_, step_id);
    v1::TensorSlice* const slice = request.mutable_slice();
    slice->set_data_type(v1::DATA_TYPE_FLOAT32);
    slice->add_shape(static_cast<int64_t>(hidden.size()) / hidden_size_);
    slice->add_shape(hidden_size_);
    slice->set_offset_bytes(static_cast<int64_t>(offset));
    slice->set_total_bytes(static_cast<int64_t>(total));
    slice->set_data(bytes + offset, size);
    slice->set_crc32c(Crc32c(bytes + offset, size));
    RETURN_IF_ERROR(stream_->Write(std::move(request), kSendTimeout));
  }
  return absl::OkStatus();
}

// A token link over a TransferSampledTokens stream.
class GrpcTokenLink : public TokenLink {
 public:
  // Opens the stream, without waiting for the peer.
  GrpcTokenLink(StageRequest stage, std::shared_ptr<grpc::Channel> channel)
      : stage_(std::move(stage)),
        stream_(Stream::Start(
            absl::StrCat("the first stage at ", stage_.first_stage_address),
            "sampled tokens", kWaitingMessagesMax,
            [stub = NewStub(std::move(channel))](auto* context, auto* response,
                                                 auto* reactor) {
              stub->async()->TransferSampledTokens(context, response, reactor);
            })) {}

  ~GrpcTokenLink() override { stream_->Close(); }

  absl::Status Send(int64_t step_id,
                    absl::Span<const SampledToken> sampled) override {
    auto request =
        NewRequest<v1::TransferSampledTokensRequest>(stage_, step_id);
    for (const SampledToken& from : sampled) {
      v1::SequenceToken* const token = request.add_tokens();
      token->set_sequence_id(from.sequence_id);
      token->set_token_id(from.token_id);
    }
    SetChecksum(&request);
    return stream_->Write(std::move(request), kSendTimeout);
  }
  void Finish() override { stream_->Finish(); }
  void Close() override { stream_->Close(); }

 private:
  using Stream = TransferStream<v1::TransferSampledTokensRequest,
                                v1::TransferSampledTokensResponse>;

  const StageRequest stage_;
  const std::shared_ptr<Stream> stream_;
};

}  // namespace

absl::StatusOr<OutgoingLinks> MakeGrpcLinks(const StageRequest& stage,
                                            int hidden_size,
                                            const Credentials& credentials) {
  OutgoingLinks links;
  if (!stage.next_stage_address.empty()) {
    ASSIGN_OR_RETURN(
        std::shared_ptr<grpc::Channel> channel,
        credentials.CreateChannel(stage.next_stage_address, kWorkerName));
    links.next =
        std::make_shared<GrpcStageLink>(stage, hidden_size, std::move(channel));
  }
  if (!stage.first_stage_address.empty()) {
    ASSIGN_OR_RETURN(
        std::shared_ptr<grpc::Channel> channel,
        credentials.CreateChannel(stage.first_stage_address, kWorkerName));
    links.first = std::make_shared<GrpcTokenLink>(stage, std::move(channel));
  }
  return links;
}

}  // namespace tern
