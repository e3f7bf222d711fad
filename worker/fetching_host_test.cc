#include "worker/fetching_host.h"

#include <stdlib.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "blob/hash_memory.h"
#include "blob/model_content.h"
#include "gtest/gtest.h"
#include "kernels/isa.h"
#include "model/manifest.h"
#include "model/model_file.h"
#include "model/model_source.h"
#include "tests/testing/tiny_model.h"
#include "util/clock.h"
#include "worker/model_cache.h"
#include "worker/stage_backend.h"
#include "worker/stage_host.h"
#include "worker/stage_links.h"
#include "worker/weight_source.h"

namespace tern {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(60);
constexpr int64_t kMemoryBytes = 1 << 30;

// Matrices too large to come with every stage.
testing::TinyModelOptions LargeTensors() {
  testing::TinyModelOptions tiny;
  tiny.hidden_size = 512;
  tiny.ffn_size = 1024;
  tiny.n_heads = 8;
  tiny.head_dim = 64;
  return tiny;
}

// A model somewhere else.
struct Remote {
  // is_other: with another lowest bit of the embedding's first number.
  explicit Remote(bool is_other, const testing::TinyModelOptions& tiny = {}) {
    path = testing::WriteTinyModel(tiny);
    source = *ModelSource::Open(path);
    if (is_other) {
      const std::vector<ModelFile> files = *source->OpenFiles();
      for (const ModelFile::Part& part : files[0].parts) {
        if (part.name != "token_embd.weight") continue;
        std::fstream file(path,
                          std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(part.offset);
        file.put(static_cast<char>(files[0].file->bytes()[part.offset] ^ 1));
      }
    }
    content = *OpenModelContent(*source, {});
  }
  ~Remote() { std::filesystem::remove(path); }

  std::string path;
  std::shared_ptr<const ModelSource> source;
  std::shared_ptr<const ModelContent> content;
};

class RemoteSource : public WeightSource {
 public:
  // before_read: called with every block; may be null.
  RemoteSource(const std::vector<const Remote*>& remotes,
               std::function<absl::Status()> before_read)
      : remotes_(remotes), before_read_(std::move(before_read)) {}

  const std::string& name() const override { return name_; }
  absl::StatusOr<std::string> GetManifest(const std::string& id,
                                          absl::Duration) override {
    for (const Remote* remote : remotes_) {
      if (remote->content->content_id() == id) {
        return remote->content->manifest_text();
      }
    }
    return absl::NotFoundError("not here");
  }
  absl::Status Read(const std::string& id, const ManifestBlock& block,
                    absl::Span<uint8_t> out, absl::Duration) override {
    if (before_read_ != nullptr) {
      const absl::Status status = before_read_();
      if (!status.ok()) return status;
    }
    n_bytes_read += block.bytes;
    for (const Remote* remote : remotes_) {
      if (remote->content->content_id() == id) {
        return remote->content->Read(block.file, block.offset, out);
      }
    }
    return absl::NotFoundError("not here");
  }
  void Cancel() override {}

  // Of all that there were.
  static std::atomic<int64_t> n_bytes_read;

 private:
  const std::string name_ = "remote";
  const std::vector<const Remote*> remotes_;
  const std::function<absl::Status()> before_read_;
};

std::atomic<int64_t> RemoteSource::n_bytes_read{0};

class Observer : public LoadObserver {
 public:
  void OnProgress(int64_t loaded, int64_t total) override {
    EXPECT_LE(loaded, total);
  }
  void OnLoaded(absl::StatusOr<LoadedStage> loaded) override {
    status_ = loaded.status();
    done_.Notify();
  }
  bool IsCancelled() override { return false; }

  absl::Status Await() {
    if (!done_.WaitForNotificationWithTimeout(kPatience)) {
      return absl::DeadlineExceededError("the load has not ended");
    }
    return status_;
  }

 private:
  absl::Notification done_;
  absl::Status status_;
};

class FetchingHostTest : public ::testing::Test {
 protected:
  FetchingHostTest() {
    folder_ = absl::StrCat(::testing::TempDir(), "/host-XXXXXX");
    EXPECT_NE(mkdtemp(&folder_[0]), nullptr);
  }

  void Start(std::shared_ptr<const ModelSource> own, bool has_cache) {
    if (has_cache) cache_ = *ModelCache::Create({folder_});
    FetchingHost::Models models;
    if (own != nullptr) models.emplace("tiny", std::move(own));
    FetchingHost::Options options;
    options.fetch.first_wait = absl::Milliseconds(1);
    options.fetch.n_streams = 1;
    options.fetch.rounds_max = rounds_max_;
    host_ = std::make_unique<FetchingHost>(
        options, std::move(models), cache_.get(), &memory_,
        [](const std::string& name, std::shared_ptr<const ModelSource> source) {
          StageHost::Options stage;
          stage.model_name = name;
          stage.memory_bytes = kMemoryBytes;
          stage.isa = Isa::kRef;
          return std::make_shared<StageHost>(
              stage, std::move(source),
              [](const StageRequest&, int) -> absl::StatusOr<OutgoingLinks> {
                return OutgoingLinks();
              },
              Clock::System());
        },
        [this](const StageRequest&) {
          return std::vector<std::shared_ptr<WeightSource>>{
              std::make_shared<RemoteSource>(
                  std::vector<const Remote*>{&one_, &other_, &large_},
                  before_read_)};
        });
  }

  StageRequest Request(const Remote& remote, int64_t epoch,
                       bool with_content = true) {
    StageRequest request{};
    request.model = "tiny";
    request.pipeline_id = "p";
    request.epoch = epoch;
    request.model_fingerprint = remote.source->fingerprint();
    request.layer_begin = 0;
    request.layer_end = 2;
    request.stage_index = 0;
    request.stage_count = 1;
    request.numerics_id = "cpu-1/int8";
    request.kv_block_count = 4;
    request.max_step_tokens = 8;
    if (with_content) request.content_id = remote.content->content_id();
    return request;
  }

  // What comes of a load.
  absl::Status Load(const StageRequest& request) {
    auto observer = std::make_shared<Observer>();
    const absl::Status status = host_->Load(request, observer);
    return status.ok() ? observer->Await() : status;
  }

  Remote one_{false};
  Remote other_{true};  // the same header, other weights
  Remote large_{false, LargeTensors()};
  std::function<absl::Status()> before_read_;
  int rounds_max_ = 3;
  std::string folder_;
  HashMemory memory_{""};
  std::unique_ptr<ModelCache> cache_;
  std::unique_ptr<FetchingHost> host_;
};

TEST_F(FetchingHostTest, ServesItsOwnFileWhenItIsTheCoordinators) {
  Start(one_.source, /*has_cache=*/false);
  EXPECT_EQ(host_->Find(one_.content->content_id()), nullptr);
  const absl::Status status = Load(Request(one_, 1));
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(host_->plans().ok());
  // Now it knows what it holds.
  EXPECT_NE(host_->Find(one_.content->content_id()), nullptr);
}

TEST_F(FetchingHostTest, RefusesItsOwnFileWhenATensorDiffers) {
  ASSERT_EQ(one_.source->fingerprint(), other_.source->fingerprint());
  Start(one_.source, /*has_cache=*/false);
  const absl::Status status = Load(Request(other_, 1));
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "tensor ")) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "--cache_dir")) << status;
  EXPECT_FALSE(host_->plans().ok());
}

TEST_F(FetchingHostTest, WithoutAContentIdTheHeaderMustDo) {
  Start(one_.source, /*has_cache=*/false);
  EXPECT_TRUE(Load(Request(other_, 1, /*with_content=*/false)).ok());
}

TEST_F(FetchingHostTest, WithoutAFileItFetchesAndChangesModels) {
  Start(nullptr, /*has_cache=*/true);
  EXPECT_TRUE(absl::IsFailedPrecondition(host_->plans().status()));
  ASSERT_TRUE(Load(Request(one_, 1)).ok());
  EXPECT_TRUE(host_->plans().ok());
  EXPECT_NE(host_->Find(one_.content->content_id()), nullptr);
  ASSERT_TRUE(Load(Request(other_, 2)).ok());
  EXPECT_TRUE(host_->plans().ok());
  // The first one is still in the cache.
  EXPECT_NE(host_->Find(one_.content->content_id()), nullptr);
  ASSERT_TRUE(Load(Request(one_, 3)).ok());
}

TEST_F(FetchingHostTest, AStageThatDoesNotFitIsRefusedBeforeItIsFetched) {
  Start(nullptr, /*has_cache=*/true);
  StageRequest request = Request(large_, 1);
  request.kv_block_count = 1 << 20;
  RemoteSource::n_bytes_read = 0;
  const absl::Status status = Load(request);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(),
                                absl::StrCat("more than the ", kMemoryBytes)))
      << status;
  EXPECT_FALSE(host_->plans().ok());
  const int64_t n_bytes_before = RemoteSource::n_bytes_read;
  // One that fits is served; the tensors are most of the model.
  ASSERT_TRUE(Load(Request(large_, 2)).ok());
  EXPECT_GT(RemoteSource::n_bytes_read, 3 * n_bytes_before);
}

TEST_F(FetchingHostTest, AStageThatDoesNotFitIsRefusedBeforeItIsHashed) {
  Start(large_.source, /*has_cache=*/false);
  StageRequest request = Request(large_, 1);
  request.kv_block_count = 1 << 20;
  EXPECT_TRUE(absl::IsResourceExhausted(Load(request)));
  // Nothing of the file is known.
  EXPECT_EQ(host_->Find(large_.content->content_id()), nullptr);
  ASSERT_TRUE(Load(Request(large_, 2)).ok());
  EXPECT_NE(host_->Find(large_.content->content_id()), nullptr);
}

TEST_F(FetchingHostTest, WhatItCannotFetchItRefuses) {
  Start(nullptr, /*has_cache=*/true);
  const absl::Status no_id = Load(Request(one_, 1, /*with_content=*/false));
  EXPECT_TRUE(absl::IsFailedPrecondition(no_id)) << no_id;
  StageRequest request = Request(one_, 1);
  request.content_id = "../secret";
  EXPECT_TRUE(absl::IsInvalidArgument(Load(request)));
  request.content_id = std::string(64, '0');
  const absl::Status unknown = Load(request);
  EXPECT_TRUE(absl::IsUnavailable(unknown)) << unknown;
  // A coordinator whose own words do not fit together.
  request = Request(one_, 2);
  request.model_fingerprint += 1;
  const absl::Status unfit = Load(request);
  EXPECT_TRUE(absl::IsFailedPrecondition(unfit)) << unfit;
}

TEST_F(FetchingHostTest, ALaterEpochEndsAFetchUnderWay) {
  absl::Notification reading;
  std::atomic<bool> is_busy{true};
  before_read_ = [&]() -> absl::Status {
    if (!is_busy) return absl::OkStatus();
    if (!reading.HasBeenNotified()) reading.Notify();
    return absl::ResourceExhaustedError("busy");
  };
  rounds_max_ = 20;
  Start(nullptr, /*has_cache=*/true);
  auto observer = std::make_shared<Observer>();
  ASSERT_TRUE(host_->Load(Request(one_, 1), observer).ok());
  ASSERT_TRUE(reading.WaitForNotificationWithTimeout(kPatience));
  EXPECT_TRUE(absl::IsAborted(Load(Request(one_, 1))));
  auto later = std::make_shared<Observer>();
  ASSERT_TRUE(host_->Load(Request(one_, 2), later).ok());
  EXPECT_TRUE(absl::IsAborted(observer->Await()));
  is_busy = false;
  EXPECT_TRUE(later->Await().ok());
}

TEST_F(FetchingHostTest, ShutdownEndsALoadThatWaits) {
  absl::Notification reading;
  before_read_ = [&]() -> absl::Status {
    if (!reading.HasBeenNotified()) reading.Notify();
    return absl::ResourceExhaustedError("busy");
  };
  rounds_max_ = 20;
  Start(nullptr, /*has_cache=*/true);
  auto observer = std::make_shared<Observer>();
  ASSERT_TRUE(host_->Load(Request(one_, 1), observer).ok());
  ASSERT_TRUE(reading.WaitForNotificationWithTimeout(kPatience));
  host_->Shutdown(absl::UnavailableError("the worker is shutting down"));
  EXPECT_TRUE(absl::IsUnavailable(observer->Await()));
  EXPECT_FALSE(host_->Load(Request(one_, 2), observer).ok());
}

}  // namespace
}  // namespace tern
