#include "worker/grpc_weight_source.h"

#include <cstring>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "proto/tern/v1/blob.grpc.pb.h"
#include "proto/tern/v1/blob.pb.h"
#include "util/crc32c.h"
#include "util/grpc_status.h"
#include "util/status_macros.h"

namespace tern {
namespace {

class GrpcWeightSource : public WeightSource {
 public:
  GrpcWeightSource(std::string name, std::shared_ptr<grpc::Channel> channel)
      : name_(std::move(name)),
        stub_(v1::BlobService::NewStub(std::move(channel))) {}

  const std::string& name() const override { return name_; }

  absl::StatusOr<std::string> GetManifest(const std::string& content_id,
                                          absl::Duration timeout) override {
    Call call(this, timeout);
    RETURN_IF_ERROR(call.status());
    v1::GetManifestRequest request;
    request.set_content_id(content_id);
    v1::GetManifestResponse response;
    RETURN_IF_ERROR(
        FromGrpcStatus(stub_->GetManifest(call.context(), request, &response)));
    return std::move(*response.mutable_manifest());
  }

  absl::Status Read(const std::string& content_id, const ManifestBlock& block,
                    absl::Span<uint8_t> out, absl::Duration timeout) override {
    Call call(this, timeout);
    RETURN_IF_ERROR(call.status());
    v1::ReadBlobRequest request;
    request.set_content_id(content_id);
    request.set_file_index(block.file);
    request.set_offset(block.offset);
    request.set_byte_count(block.bytes);
    const auto reader = stub_->ReadBlob(call.context(), request);
    v1::ReadBlobResponse chunk;
    size_t done = 0;
    absl::Status broken;
    while (reader->Read(&chunk)) {
      const std::string& data = chunk.data();
      if (data.size() > out.size() - done) {
        broken = absl::DataLossError("more bytes came than were asked for");
      } else if (chunk.crc32c() != Crc32c(data.data(), data.size())) {
        broken = absl::DataLossError("the checksum of a chunk is wrong");
      }
      if (!broken.ok()) {
        call.context()->TryCancel();
        break;
      }
      std::memcpy(out.data() + done, data.data(), data.size());
      done += data.size();
    }
    const absl::Status status = FromGrpcStatus(reader->Finish());
    RETURN_IF_ERROR(broken);
    RETURN_IF_ERROR(status);
    if (done < out.size()) {
      return absl::DataLossError(absl::StrCat("the stream ended after ", done,
                                              " of ", out.size(), " bytes"));
    }
    return absl::OkStatus();
  }

  void Cancel() override {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
    for (grpc::ClientContext* context : calls_) context->TryCancel();
  }

 private:
  // A call that Cancel() finds.
  class Call {
   public:
    Call(GrpcWeightSource* source, absl::Duration timeout) : source_(source) {
      context_.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
      absl::MutexLock lock(&source_->mu_);
      is_begun_ = !source_->cancelled_;
      if (is_begun_) source_->calls_.insert(&context_);
    }
    ~Call() {
      absl::MutexLock lock(&source_->mu_);
      source_->calls_.erase(&context_);
    }
    absl::Status status() const {
      if (is_begun_) return absl::OkStatus();
      return absl::CancelledError("nobody waits for the weights any more");
    }
    grpc::ClientContext* context() { return &context_; }

   private:
    GrpcWeightSource* const source_;
    grpc::ClientContext context_;
    bool is_begun_;
  };

  const std::string name_;
  const std::unique_ptr<v1::BlobService::Stub> stub_;
  absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  std::set<grpc::ClientContext*> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<std::shared_ptr<WeightSource>> MakeGrpcWeightSource(
    const std::string& address, const std::string& peer_name,
    const Credentials& credentials) {
  ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                   credentials.CreateChannel(address, peer_name));
  return std::make_shared<GrpcWeightSource>(
      absl::StrCat(peer_name == kCoordinatorName ? "coordinator " : "worker ",
                   address),
      std::move(channel));
}

}  // namespace tern
