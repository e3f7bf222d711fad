#include "blob/blob_service.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "model/manifest.h"
#include "proto/tern/v1/blob.pb.h"
#include "util/crc32c.h"
#include "util/grpc_status.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Small enough that a limited bandwidth is shared out evenly.
constexpr int64_t kChunkBytes = 512 << 10;
// Below that, a block would take longer than those who wait for it do.
constexpr int64_t kBandwidthMin = 1 << 20;
constexpr int64_t kReadBytesMax = 64 << 20;
// Below kMessageBytesMax, with room for what the wire adds.
constexpr size_t kManifestBytesMax = 15 << 20;

absl::Status NotHeld(absl::string_view content_id) {
  return absl::NotFoundError(
      absl::StrCat("nothing of content ",
                   absl::CHexEscape(content_id.substr(0, 64)), " is here"));
}

}  // namespace

// One ReadBlob call. At any time it waits for its turn, or a thread of the
// service works on it, or gRPC writes its chunk, or it has finished; so nothing
// in it is used by two threads at once.
class BlobServiceImpl::ReadCall
    : public grpc::ServerWriteReactor<v1::ReadBlobResponse> {
 public:
  ReadCall(BlobServiceImpl* service, const v1::ReadBlobRequest& request)
      : service_(service),
        file_(request.file_index()),
        offset_(request.offset()),
        left_(request.byte_count()) {}

  // With the status of what was checked already.
  void Start(const absl::Status& allowed, const std::string& content_id) {
    const absl::Status status = Begin(allowed, content_id);
    if (status.ok()) {
      service_->Enqueue(this, NextBytes());
    } else {
      Finish(ToGrpcStatus(status));
    }
  }

  // On a thread of the service.
  void SendNext() {
    if (cancelled_.load()) {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "nobody reads"));
      return;
    }
    const int64_t bytes = NextBytes();
    std::string* const data = response_.mutable_data();
    data->resize(bytes);
    const absl::Status status = content_->Read(
        file_, offset_,
        absl::MakeSpan(reinterpret_cast<uint8_t*>(&(*data)[0]), bytes));
    if (!status.ok()) {
      Finish(ToGrpcStatus(status));
      return;
    }
    response_.set_crc32c(Crc32c(data->data(), data->size()));
    offset_ += bytes;
    left_ -= bytes;
    StartWrite(&response_);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status(grpc::StatusCode::CANCELLED, "nobody reads"));
    } else if (left_ == 0) {
      Finish(grpc::Status::OK);
    } else {
      service_->Enqueue(this, NextBytes());
    }
  }

  void OnCancel() override {
    cancelled_.store(true);
    service_->Hurry(this);
  }

  void OnDone() override {
    if (is_stream_) service_->EndStream();
    delete this;
  }

 private:
  absl::Status Begin(const absl::Status& allowed,
                     const std::string& content_id) {
    RETURN_IF_ERROR(allowed);
    if (!service_->options_.sends) {
      return absl::FailedPreconditionError(
          "this server sends no weights (--blob_service=false)");
    }
    content_ = service_->store_->Find(content_id);
    if (content_ == nullptr) return NotHeld(content_id);
    const std::vector<ManifestFile>& files = content_->manifest().files;
    if (file_ < 0 || file_ >= static_cast<int>(files.size())) {
      return absl::InvalidArgumentError(
          absl::StrCat("file ", file_, " of ", files.size(), " files"));
    }
    if (left_ < 1 || left_ > kReadBytesMax || offset_ < 0 ||
        left_ > files[file_].bytes - offset_) {
      return absl::InvalidArgumentError(absl::StrCat(
          left_, " bytes at ", offset_, " of a file of ", files[file_].bytes,
          " bytes; 1 to ", kReadBytesMax, " within it can be read"));
    }
    if (!service_->BeginStream()) {
      return absl::ResourceExhaustedError(
          absl::StrCat(service_->options_.streams_max,
                       " streams of weights are being sent, which is the "
                       "most; try again"));
    }
    is_stream_ = true;
    return absl::OkStatus();
  }

  int64_t NextBytes() const { return std::min(left_, kChunkBytes); }

  BlobServiceImpl* const service_;
  const int file_;
  int64_t offset_;  // of the next chunk
  int64_t left_;    // bytes
  std::shared_ptr<const BlobContent> content_;
  bool is_stream_ = false;
  std::atomic<bool> cancelled_{false};
  v1::ReadBlobResponse response_;
};

absl::Status BlobServiceImpl::Check(const Options& options) {
  if (options.bandwidth == 0 || options.bandwidth >= kBandwidthMin) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "--blob_bandwidth is ", options.bandwidth, "; it must be at least ",
      kBandwidthMin, " bytes per second, or 0 for no limit"));
}

BlobServiceImpl::BlobServiceImpl(const Options& options, BlobStore* store,
                                 const Credentials* credentials, Clock* clock)
    : options_(options),
      store_(store),
      credentials_(credentials),
      clock_(clock) {
  for (int i = 0; i < options_.n_threads; ++i) {
    threads_.emplace_back([this] { SenderMain(); });
  }
}

BlobServiceImpl::~BlobServiceImpl() {
  {
    absl::MutexLock lock(&mu_);
    CHECK(n_streams_ == 0);
    stopping_ = true;
    changed_.SignalAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

grpc::ServerUnaryReactor* BlobServiceImpl::GetManifest(
    grpc::CallbackServerContext* context, const v1::GetManifestRequest* request,
    v1::GetManifestResponse* response) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  absl::Status status = credentials_->CheckCaller(*context, {kWorkerName});
  if (status.ok()) {
    const std::shared_ptr<const BlobContent> content =
        store_->Find(request->content_id());
    if (content == nullptr) {
      status = NotHeld(request->content_id());
    } else if (content->manifest_text().size() > kManifestBytesMax) {
      status = absl::ResourceExhaustedError(absl::StrCat(
          "the model's manifest has ", content->manifest_text().size(),
          " bytes; at most ", kManifestBytesMax, " are sent"));
    } else {
      response->set_manifest(content->manifest_text());
    }
  }
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

grpc::ServerWriteReactor<v1::ReadBlobResponse>* BlobServiceImpl::ReadBlob(
    grpc::CallbackServerContext* context, const v1::ReadBlobRequest* request) {
  auto* const call = new ReadCall(this, *request);
  call->Start(credentials_->CheckCaller(*context, {kWorkerName}),
              request->content_id());
  return call;
}

void BlobServiceImpl::Enqueue(ReadCall* call, int64_t bytes) {
  const absl::Time now = clock_->Now();
  absl::MutexLock lock(&mu_);
  absl::Time turn = now;
  if (options_.bandwidth > 0) {
    turn = std::max(now, free_at_);
    free_at_ = turn + absl::Seconds(static_cast<double>(bytes) /
                                    static_cast<double>(options_.bandwidth));
  }
  turns_.emplace(turn, call);
  changed_.Signal();
}

void BlobServiceImpl::Hurry(ReadCall* call) {
  absl::MutexLock lock(&mu_);
  for (auto it = turns_.begin(); it != turns_.end(); ++it) {
    if (it->second != call) continue;
    turns_.erase(it);
    turns_.emplace(absl::InfinitePast(), call);
    changed_.Signal();
    return;
  }
}

bool BlobServiceImpl::BeginStream() {
  absl::MutexLock lock(&mu_);
  if (n_streams_ >= options_.streams_max) return false;
  ++n_streams_;
  return true;
}

void BlobServiceImpl::EndStream() {
  absl::MutexLock lock(&mu_);
  --n_streams_;
}

void BlobServiceImpl::SenderMain() {
  while (true) {
    ReadCall* call = nullptr;
    {
      absl::MutexLock lock(&mu_);
      while (true) {
        if (stopping_) return;
        if (turns_.empty()) {
          changed_.Wait(&mu_);
          continue;
        }
        const absl::Duration wait = turns_.begin()->first - clock_->Now();
        if (wait <= absl::ZeroDuration()) break;
        changed_.WaitWithTimeout(&mu_, wait);
      }
      call = turns_.begin()->second;
      turns_.erase(turns_.begin());
    }
    call->SendNext();
  }
}

}  // namespace tern
