#include "worker/weight_fetcher.h"

#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "blob/blob_service.h"
#include "blob/blob_store.h"
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
#include "worker/grpc_weight_source.h"
#include "worker/model_cache.h"
#include "worker/weight_source.h"

namespace tern {
namespace {

constexpr int kBlocks = 12;
constexpr int64_t kBlockBytes = 3000;

// A model of twelve small tensors.
class Model : public BlobContent {
 public:
  Model() {
    ManifestFile file{"model.gguf", kBlocks * kBlockBytes, {}};
    for (int i = 0; i < kBlocks; ++i) {
      const std::vector<uint8_t> bytes = Bytes(i * kBlockBytes, kBlockBytes);
      file.parts.push_back({absl::StrCat("t", i),
                            i * kBlockBytes,
                            kBlockBytes,
                            {Sha256(bytes.data(), bytes.size())}});
    }
    manifest_.files.push_back(file);
    text_ = SerializeManifest(manifest_);
  }

  static std::vector<uint8_t> Bytes(int64_t offset, int64_t n) {
    std::vector<uint8_t> bytes(n);
    for (int64_t i = 0; i < n; ++i) bytes[i] = (offset + i) * 11 / 7;
    return bytes;
  }

  std::string id() const { return ContentIdOf(text_); }
  const Manifest& manifest() const override { return manifest_; }
  const std::string& manifest_text() const override { return text_; }
  absl::Status Read(int file, int64_t offset,
                    absl::Span<uint8_t> out) const override {
    const std::vector<uint8_t> bytes = Bytes(offset, out.size());
    std::copy(bytes.begin(), bytes.end(), out.begin());
    return absl::OkStatus();
  }

 private:
  Manifest manifest_;
  std::string text_;
};

// Does what a test wants it to.
class FakeSource : public WeightSource {
 public:
  using Behaviour = std::function<absl::Status(int block, absl::Span<uint8_t>)>;
  FakeSource(std::string name, Behaviour behaviour)
      : name_(std::move(name)), behaviour_(std::move(behaviour)) {}

  const std::string& name() const override { return name_; }
  absl::StatusOr<std::string> GetManifest(const std::string&,
                                          absl::Duration) override {
    return model_.manifest_text();
  }
  absl::Status Read(const std::string&, const ManifestBlock& block,
                    absl::Span<uint8_t> out, absl::Duration) override {
    ++n_reads_;
    const absl::Status ignored = model_.Read(0, block.offset, out);
    return behaviour_(block.part, out);
  }
  void Cancel() override {
    absl::MutexLock lock(&mu_);
    cancelled_ = true;
  }
  // For a source that never answers.
  absl::Status AwaitCancel() {
    absl::MutexLock lock(&mu_);
    mu_.Await(absl::Condition(&cancelled_));
    return absl::CancelledError("cancelled");
  }

  int n_reads() const { return n_reads_; }

 private:
  const std::string name_;
  const Behaviour behaviour_;
  const Model model_;
  std::atomic<int> n_reads_{0};
  absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
};

absl::Status Good(int, absl::Span<uint8_t>) { return absl::OkStatus(); }
absl::Status Damaged(int, absl::Span<uint8_t> out) {
  out[out.size() / 2] ^= 1;
  return absl::OkStatus();
}
absl::Status Broken(int, absl::Span<uint8_t>) {
  return absl::UnavailableError("connection lost");
}
absl::Status NotHere(int, absl::Span<uint8_t>) {
  return absl::NotFoundError("not here");
}

class WeightFetcherTest : public ::testing::Test {
 protected:
  WeightFetcherTest() : all_(kBlocks) {
    std::iota(all_.begin(), all_.end(), 0);
    folder_ = absl::StrCat(::testing::TempDir(), "/fetch-XXXXXX");
    EXPECT_NE(mkdtemp(&folder_[0]), nullptr);
    options_.first_wait = absl::Milliseconds(1);
    Reopen();
  }

  // As another process would.
  void Reopen() {
    replica_.reset();
    cache_ = *ModelCache::Create({folder_});
    auto replica = cache_->Open(model_.id(), model_.manifest_text());
    EXPECT_TRUE(replica.ok()) << replica.status();
    replica_ = *std::move(replica);
  }

  absl::StatusOr<FetchReport> Fetch(
      std::vector<std::shared_ptr<WeightSource>> sources) {
    EXPECT_TRUE(cache_->Reserve(replica_.get(), all_).ok());
    return FetchBlocks(
        replica_.get(), all_, sources, options_,
        [this](int64_t done, int64_t total) {
          EXPECT_GE(done, last_done_);
          last_done_ = done;
          EXPECT_EQ(total, kBlocks * kBlockBytes);
        },
        [] { return false; });
  }

  void ExpectWhole() {
    for (int i = 0; i < kBlocks; ++i) EXPECT_TRUE(replica_->Has(i)) << i;
    std::vector<uint8_t> out(kBlocks * kBlockBytes);
    ASSERT_TRUE(replica_->Read(0, 0, absl::MakeSpan(out)).ok());
    EXPECT_EQ(out, Model::Bytes(0, kBlocks * kBlockBytes));
    EXPECT_EQ(last_done_, kBlocks * kBlockBytes);
  }

  static std::shared_ptr<FakeSource> Make(const std::string& name,
                                          FakeSource::Behaviour behaviour) {
    return std::make_shared<FakeSource>(name, std::move(behaviour));
  }

  Model model_;
  std::vector<int> all_;
  std::string folder_;
  FetchOptions options_;
  std::unique_ptr<ModelCache> cache_;
  std::shared_ptr<CachedModel> replica_;
  int64_t last_done_ = 0;
};

TEST_F(WeightFetcherTest, PeersAreAskedBeforeTheCoordinator) {
  const auto a = Make("a", Good);
  const auto b = Make("b", Good);
  const auto coordinator = Make("c", Good);
  const auto report = Fetch({a, b, coordinator});
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectWhole();
  EXPECT_EQ(a->n_reads(), kBlocks / 2);
  EXPECT_EQ(b->n_reads(), kBlocks / 2);
  EXPECT_EQ(coordinator->n_reads(), 0);
  EXPECT_EQ(report->bytes_by_source.at("a"), kBlocks / 2 * kBlockBytes);
}

TEST_F(WeightFetcherTest, DamagedBlocksAreFetchedElsewhereAndNeverKept) {
  options_.n_streams = 1;
  const auto bad = Make("bad", Damaged);
  const auto coordinator = Make("c", Good);
  const auto report = Fetch({bad, coordinator});
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectWhole();
  // Not asked again.
  EXPECT_EQ(bad->n_reads(), 1);
  EXPECT_EQ(report->bytes_by_source.count("bad"), 0u);
}

TEST_F(WeightFetcherTest, OnlyDamagedBytesAreNoWeights) {
  const auto report = Fetch({Make("bad", Damaged), Make("worse", Damaged)});
  EXPECT_TRUE(absl::IsUnavailable(report.status())) << report.status();
  EXPECT_TRUE(absl::StrContains(report.status().message(), "tensor t"));
  EXPECT_TRUE(absl::StrContains(report.status().message(), "worse"));
  for (int i = 0; i < kBlocks; ++i) EXPECT_FALSE(replica_->Has(i));
}

TEST_F(WeightFetcherTest, APeerThatBreaksOffIsLeftAlone) {
  options_.n_streams = 1;
  const auto peer = Make("peer", [](int block, absl::Span<uint8_t> out) {
    return block < 4 ? Good(block, out) : Broken(block, out);
  });
  const auto coordinator = Make("c", Good);
  const auto report = Fetch({peer, coordinator});
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectWhole();
  EXPECT_EQ(peer->n_reads(), 5);
  EXPECT_EQ(report->bytes_by_source.at("peer"), 4 * kBlockBytes);
}

TEST_F(WeightFetcherTest, WhoHasOnlyAPartGivesThatPart) {
  options_.n_streams = 1;
  const auto peer = Make("peer", [](int block, absl::Span<uint8_t> out) {
    return block < 6 ? Good(block, out) : NotHere(block, out);
  });
  const auto report = Fetch({peer, Make("c", Good)});
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectWhole();
  EXPECT_EQ(report->bytes_by_source.at("peer"), 6 * kBlockBytes);
  EXPECT_EQ(report->bytes_by_source.at("c"), 6 * kBlockBytes);
}

TEST_F(WeightFetcherTest, ABusyCoordinatorIsAskedAgain) {
  std::atomic<int> n{0};
  const auto busy = Make("c", [&n](int, absl::Span<uint8_t>) {
    return ++n % 3 == 0 ? absl::OkStatus()
                        : absl::ResourceExhaustedError("busy");
  });
  options_.n_streams = 1;
  ASSERT_TRUE(Fetch({busy}).ok());
  ExpectWhole();
}

TEST_F(WeightFetcherTest, TheNextAttemptFetchesWhatIsMissingAlone) {
  options_.n_streams = 1;
  const auto half = Make("half", [](int block, absl::Span<uint8_t> out) {
    return block < 7 ? Good(block, out) : Broken(block, out);
  });
  EXPECT_TRUE(absl::IsUnavailable(Fetch({half}).status()));
  Reopen();
  last_done_ = 0;
  const auto rest = Make("rest", Good);
  const auto report = Fetch({rest});
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectWhole();
  EXPECT_EQ(rest->n_reads(), kBlocks - 7);
}

TEST_F(WeightFetcherTest, BlocksOfAnEarlierBootAreHashedNotFetched) {
  ASSERT_TRUE(Fetch({Make("c", Good)}).ok());
  // One of them did not reach the disk.
  const std::vector<uint8_t> zeros(kBlockBytes);
  ASSERT_TRUE(replica_->Store(5, zeros).ok());
  const std::string states = folder_ + "/models/" + model_.id() + "/blocks";
  FILE* file = fopen(states.c_str(), "r+");
  fseek(file, 20, SEEK_SET);
  fputs("another", file);
  fclose(file);
  Reopen();
  last_done_ = 0;
  const auto source = Make("c", Good);
  const auto report = Fetch({source});
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectWhole();
  EXPECT_EQ(source->n_reads(), 1);
  EXPECT_EQ(report->rechecked_bytes, (kBlocks - 1) * kBlockBytes);
}

TEST_F(WeightFetcherTest, CancellingEndsCallsUnderWay) {
  std::shared_ptr<FakeSource> stuck;
  std::atomic<int> n_waiting{0};
  stuck = Make("stuck", [&](int, absl::Span<uint8_t>) {
    ++n_waiting;
    return stuck->AwaitCancel();
  });
  const absl::StatusOr<FetchReport> report = FetchBlocks(
      replica_.get(), all_, {stuck}, options_, [](int64_t, int64_t) {},
      [&] { return n_waiting > 0; });
  EXPECT_TRUE(absl::IsCancelled(report.status())) << report.status();
}

// As a content: every third tensor is damaged.
class PartlyDamaged : public Model {
 public:
  absl::Status Read(int file, int64_t offset,
                    absl::Span<uint8_t> out) const override {
    const absl::Status status = Model::Read(file, offset, out);
    if (offset / kBlockBytes % 3 == 0) out[0] ^= 1;
    return status;
  }
};

TEST_F(WeightFetcherTest, WhatIsGoodOfItsOwnFileIsNotFetched) {
  const auto peer = Make("peer", Good);
  const auto report = Fetch({std::make_shared<FileWeightSource>(
                                 "own", std::make_shared<PartlyDamaged>()),
                             peer, Make("c", Good)});
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectWhole();
  EXPECT_EQ(report->bytes_by_source.at("own"), kBlocks / 3 * 2 * kBlockBytes);
  EXPECT_EQ(peer->n_reads(), kBlocks / 3);
}

TEST_F(WeightFetcherTest, WithNobodyToAskItSaysSo) {
  EXPECT_TRUE(absl::IsUnavailable(Fetch({}).status()));
}

// Over real gRPC, from a server that damages what it sends.
class RudeService : public v1::BlobService::Service {
 public:
  enum class Fault { kNone, kShort, kLong, kBadChecksum, kSlow };
  explicit RudeService(Fault fault) : fault_(fault) {}

  grpc::Status ReadBlob(
      grpc::ServerContext* context, const v1::ReadBlobRequest* request,
      grpc::ServerWriter<v1::ReadBlobResponse>* writer) override {
    std::vector<uint8_t> bytes =
        Model::Bytes(request->offset(), request->byte_count());
    if (fault_ == Fault::kSlow) {
      absl::MutexLock lock(&mu_);
      const auto gone = [context] { return context->IsCancelled(); };
      while (!gone()) changed_.WaitWithTimeout(&mu_, absl::Milliseconds(10));
      return grpc::Status::CANCELLED;
    }
    if (fault_ == Fault::kShort) bytes.pop_back();
    if (fault_ == Fault::kLong) bytes.push_back(1);
    v1::ReadBlobResponse response;
    response.set_data(std::string(bytes.begin(), bytes.end()));
    response.set_crc32c(
        fault_ == Fault::kBadChecksum ? 1 : Crc32c(bytes.data(), bytes.size()));
    writer->Write(response);
    return grpc::Status::OK;
  }

 private:
  const Fault fault_;
  absl::Mutex mu_;
  absl::CondVar changed_;
};

TEST_F(WeightFetcherTest, FaultsOnTheWireAreNoticedAndSurvived) {
  const auto credentials = *Credentials::Create({});
  for (const auto fault :
       {RudeService::Fault::kNone, RudeService::Fault::kShort,
        RudeService::Fault::kLong, RudeService::Fault::kBadChecksum,
        RudeService::Fault::kSlow}) {
    RudeService service(fault);
    grpc::ServerBuilder builder;
    int port = 0;
    ASSERT_TRUE(
        credentials->AddListeningPort("127.0.0.1:0", &builder, &port).ok());
    builder.RegisterService(&service);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    ASSERT_NE(server, nullptr);
    const auto rude = MakeGrpcWeightSource(absl::StrCat("127.0.0.1:", port),
                                           kWorkerName, *credentials);
    ASSERT_TRUE(rude.ok()) << rude.status();
    std::vector<uint8_t> out(kBlockBytes);
    const absl::Status status = (*rude)->Read(
        model_.id(), replica_->blocks()[0], absl::MakeSpan(out),
        fault == RudeService::Fault::kSlow ? absl::Milliseconds(100)
                                           : absl::Seconds(30));
    switch (fault) {
      case RudeService::Fault::kNone:
        EXPECT_TRUE(status.ok()) << status;
        break;
      case RudeService::Fault::kSlow:
        EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
        break;
      default:
        EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    }
    server->Shutdown(absl::ToChronoTime(absl::Now()));
  }
}

// The real service, with everything between.
class ModelStore : public BlobStore {
 public:
  std::shared_ptr<const BlobContent> Find(absl::string_view id) override {
    return id == model_->id() ? model_ : nullptr;
  }

 private:
  const std::shared_ptr<const Model> model_ = std::make_shared<Model>();
};

TEST_F(WeightFetcherTest, FetchesFromABlobService) {
  const auto credentials = *Credentials::Create({});
  ModelStore store;
  BlobServiceImpl service({}, &store, credentials.get(), Clock::System());
  grpc::ServerBuilder builder;
  int port = 0;
  ASSERT_TRUE(
      credentials->AddListeningPort("127.0.0.1:0", &builder, &port).ok());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const auto source = MakeGrpcWeightSource(absl::StrCat("127.0.0.1:", port),
                                           kCoordinatorName, *credentials);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto text = (*source)->GetManifest(model_.id(), absl::Seconds(30));
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text, model_.manifest_text());
  EXPECT_TRUE(absl::IsNotFound(
      (*source)->GetManifest("nothing", absl::Seconds(30)).status()));
  const auto report = Fetch({*source});
  ASSERT_TRUE(report.ok()) << report.status();
  ExpectWhole();
  server->Shutdown(absl::ToChronoTime(absl::Now()));
}

}  // namespace
}  // namespace tern
