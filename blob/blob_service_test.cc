#include "blob/blob_service.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "blob/blob_store.h"
#include "grpcpp/client_context.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "model/manifest.h"
#include "proto/tern/v1/blob.grpc.pb.h"
#include "proto/tern/v1/blob.pb.h"
#include "util/clock.h"
#include "util/crc32c.h"
#include "util/credentials.h"
#include "util/sha256.h"

namespace tern {
namespace {

constexpr int64_t kFileBytes = 5 << 19;  // five chunks

uint8_t ByteAt(int64_t offset) { return (offset * 31 + offset / 4099) & 0xff; }

// A file without a disk.
class FakeContent : public BlobContent, public BlobStore {
 public:
  FakeContent() {
    manifest_.files.push_back(
        {"model.gguf", kFileBytes, {{"t", 0, kFileBytes, {Sha256Digest{}}}}});
    text_ = SerializeManifest(manifest_);
  }
  std::string id() const { return ContentIdOf(text_); }

  const Manifest& manifest() const override { return manifest_; }
  const std::string& manifest_text() const override { return text_; }
  absl::Status Read(int file, int64_t offset,
                    absl::Span<uint8_t> out) const override {
    if (wait_ != nullptr) wait_->WaitForNotification();
    if (offset >= broken_from_) return absl::DataLossError("a broken disk");
    for (size_t i = 0; i < out.size(); ++i) out[i] = ByteAt(offset + i);
    return absl::OkStatus();
  }
  std::shared_ptr<const BlobContent> Find(absl::string_view id) override {
    if (id != this->id()) return nullptr;
    return std::shared_ptr<const BlobContent>(
        std::shared_ptr<const BlobContent>(), this);
  }

  absl::Notification* wait_ = nullptr;
  int64_t broken_from_ = kFileBytes;

 private:
  Manifest manifest_;
  std::string text_;
};

class BlobServiceTest : public ::testing::Test {
 protected:
  void Start(const BlobServiceImpl::Options& options) {
    credentials_ = *Credentials::Create({});
    service_ = std::make_unique<BlobServiceImpl>(
        options, &content_, credentials_.get(), Clock::System());
    grpc::ServerBuilder builder;
    int port = 0;
    ASSERT_TRUE(
        credentials_->AddListeningPort("127.0.0.1:0", &builder, &port).ok());
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    stub_ = v1::BlobService::NewStub(
        *credentials_->CreateChannel(absl::StrCat("127.0.0.1:", port)));
  }

  ~BlobServiceTest() override {
    stub_.reset();
    if (server_ != nullptr) server_->Shutdown(absl::ToChronoTime(absl::Now()));
    server_.reset();
    service_.reset();
  }

  v1::ReadBlobRequest Request(int64_t offset, int64_t bytes) {
    v1::ReadBlobRequest request;
    request.set_content_id(content_.id());
    request.set_offset(offset);
    request.set_byte_count(bytes);
    return request;
  }

  static void SetDeadline(grpc::ClientContext* context,
                          absl::Duration timeout = absl::Seconds(30)) {
    context->set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  }

  grpc::Status Read(const v1::ReadBlobRequest& request, std::string* bytes,
                    absl::Duration timeout = absl::Seconds(30)) {
    grpc::ClientContext context;
    SetDeadline(&context, timeout);
    auto reader = stub_->ReadBlob(&context, request);
    v1::ReadBlobResponse response;
    while (reader->Read(&response)) {
      EXPECT_LE(response.data().size(), 1u << 20);
      EXPECT_EQ(response.crc32c(),
                Crc32c(response.data().data(), response.data().size()));
      *bytes += response.data();
    }
    return reader->Finish();
  }

  FakeContent content_;
  std::unique_ptr<Credentials> credentials_;
  std::unique_ptr<BlobServiceImpl> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::BlobService::Stub> stub_;
};

TEST_F(BlobServiceTest, SendsTheManifestAndExactlyTheRange) {
  Start({});
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetManifestRequest request;
  request.set_content_id(content_.id());
  v1::GetManifestResponse response;
  ASSERT_TRUE(stub_->GetManifest(&context, request, &response).ok());
  EXPECT_EQ(ContentIdOf(response.manifest()), content_.id());

  for (const auto& [offset, bytes] :
       {std::pair<int64_t, int64_t>{0, kFileBytes}, {1, 1}, {4097, 1 << 20}}) {
    std::string got;
    const grpc::Status status = Read(Request(offset, bytes), &got);
    ASSERT_TRUE(status.ok()) << status.error_message();
    ASSERT_EQ(static_cast<int64_t>(got.size()), bytes);
    for (int64_t i = 0; i < bytes; ++i) {
      ASSERT_EQ(static_cast<uint8_t>(got[i]), ByteAt(offset + i)) << i;
    }
  }
}

TEST_F(BlobServiceTest, RefusesWhatIsNotThere) {
  Start({});
  std::string bytes;
  const auto code = [&](v1::ReadBlobRequest request) {
    return Read(request, &bytes).error_code();
  };
  EXPECT_EQ(code(Request(0, 0)), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code(Request(-1, 2)), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code(Request(1, kFileBytes)), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code(Request(int64_t{1} << 62, 1 << 20)),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(code(Request(0, int64_t{1} << 62)),
            grpc::StatusCode::INVALID_ARGUMENT);
  v1::ReadBlobRequest request = Request(0, 1);
  request.set_file_index(1);
  EXPECT_EQ(code(request), grpc::StatusCode::INVALID_ARGUMENT);
  request = Request(0, 1);
  request.set_content_id("../../etc/passwd");
  EXPECT_EQ(code(request), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(bytes, "");
}

TEST_F(BlobServiceTest, AFileThatCannotBeReadEndsTheStream) {
  content_.broken_from_ = kFileBytes / 2;
  Start({});
  std::string bytes;
  EXPECT_EQ(Read(Request(0, kFileBytes), &bytes).error_code(),
            grpc::StatusCode::DATA_LOSS);
  EXPECT_LT(static_cast<int64_t>(bytes.size()), kFileBytes);
}

TEST_F(BlobServiceTest, SwitchedOffItStillTellsWhatTheContentIs) {
  BlobServiceImpl::Options options;
  options.sends = false;
  Start(options);
  std::string bytes;
  EXPECT_EQ(Read(Request(0, 1), &bytes).error_code(),
            grpc::StatusCode::FAILED_PRECONDITION);
  grpc::ClientContext context;
  SetDeadline(&context);
  v1::GetManifestRequest request;
  request.set_content_id(content_.id());
  v1::GetManifestResponse response;
  EXPECT_TRUE(stub_->GetManifest(&context, request, &response).ok());
}

TEST_F(BlobServiceTest, OneStreamMoreThanTheMostIsRefusedAtOnce) {
  absl::Notification go_on;
  content_.wait_ = &go_on;
  BlobServiceImpl::Options options;
  options.streams_max = 1;
  Start(options);
  grpc::ClientContext context;
  SetDeadline(&context);
  const v1::ReadBlobRequest first = Request(0, 10);
  auto reader = stub_->ReadBlob(&context, first);
  // Which of two is the first, the server decides: one waits, the other not.
  std::string bytes;
  grpc::Status status;
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  do {
    status = Read(Request(0, 10), &bytes, absl::Milliseconds(200));
  } while (status.error_code() != grpc::StatusCode::RESOURCE_EXHAUSTED &&
           absl::Now() < deadline);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  go_on.Notify();
  v1::ReadBlobResponse response;
  while (reader->Read(&response)) {
  }
  reader->Finish();
}

TEST_F(BlobServiceTest, AllStreamsTogetherKeepToTheBandwidth) {
  BlobServiceImpl::Options options;
  options.bandwidth = 4 << 20;
  Start(options);
  const absl::Time begin = absl::Now();
  std::string bytes;
  ASSERT_TRUE(Read(Request(0, 1 << 20), &bytes).ok());
  ASSERT_TRUE(Read(Request(0, 1 << 20), &bytes).ok());
  // Four chunks of half a MiB; the last one begins after three eighths.
  EXPECT_GE(absl::Now() - begin, absl::Milliseconds(374));
}

TEST_F(BlobServiceTest, AReaderThatLeavesFreesItsStreamThoughItWaited) {
  BlobServiceImpl::Options options;
  options.streams_max = 1;
  options.bandwidth = 1000;  // The second chunk's turn is minutes away.
  Start(options);
  {
    grpc::ClientContext context;
    SetDeadline(&context);
    auto reader = stub_->ReadBlob(&context, Request(0, kFileBytes));
    v1::ReadBlobResponse response;
    ASSERT_TRUE(reader->Read(&response));
    context.TryCancel();
    reader->Finish();
  }
  grpc::Status status;
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  std::string bytes;
  do {
    status = Read(Request(0, 1), &bytes, absl::Milliseconds(100));
  } while (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
           absl::Now() < deadline);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
}

}  // namespace
}  // namespace tern
