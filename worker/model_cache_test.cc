#include "worker/model_cache.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "model/manifest.h"
#include "util/sha256.h"

namespace tern {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMiB = 1 << 20;

// A model of one file: a header of 100 bytes and two tensors of 6 MiB, two
// blocks each, with a gap between; the bytes depend on `seed`.
class Model {
 public:
  explicit Model(int seed) {
    bytes_.resize(100 + 13 * kMiB);
    for (size_t i = 0; i < bytes_.size(); ++i) {
      bytes_[i] = static_cast<uint8_t>(i * 13 + i / 999 + seed);
    }
    ManifestFile file{"model.gguf", static_cast<int64_t>(bytes_.size()), {}};
    for (const auto& [name, offset, bytes] :
         {std::make_tuple("", int64_t{0}, int64_t{100}),
          std::make_tuple("a", int64_t{100}, 6 * kMiB),
          std::make_tuple("b", 7 * kMiB, 6 * kMiB)}) {
      ManifestPart part{name, offset, bytes, {}};
      for (int64_t at = 0; at < bytes; at += kManifestBlockBytes) {
        part.blocks.push_back(Sha256(
            &bytes_[offset + at], std::min(kManifestBlockBytes, bytes - at)));
      }
      file.parts.push_back(part);
    }
    Manifest manifest;
    manifest.files.push_back(file);
    text_ = SerializeManifest(manifest);
    blocks_ = manifest.Blocks();
  }

  const std::string& text() const { return text_; }
  std::string id() const { return ContentIdOf(text_); }
  absl::Span<const uint8_t> Block(int i) const {
    return absl::MakeConstSpan(bytes_).subspan(blocks_[i].offset,
                                               blocks_[i].bytes);
  }
  const std::vector<uint8_t>& bytes() const { return bytes_; }

 private:
  std::vector<uint8_t> bytes_;
  std::string text_;
  std::vector<ManifestBlock> blocks_;
};

constexpr int kBlocks = 5;
const std::vector<int> kAll = {0, 1, 2, 3, 4};

class ModelCacheTest : public ::testing::Test {
 protected:
  ModelCacheTest() {
    folder_ = absl::StrCat(::testing::TempDir(), "/cache-XXXXXX");
    EXPECT_NE(mkdtemp(&folder_[0]), nullptr);
  }

  std::unique_ptr<ModelCache> Create(int64_t bytes_max = 1000 * kMiB) {
    auto cache = ModelCache::Create({folder_, bytes_max});
    EXPECT_TRUE(cache.ok()) << cache.status();
    return *std::move(cache);
  }

  std::shared_ptr<CachedModel> Open(ModelCache& cache, const Model& model) {
    auto opened = cache.Open(model.id(), model.text());
    EXPECT_TRUE(opened.ok()) << opened.status();
    return *std::move(opened);
  }

  // Makes a replica of a whole model, which is not held open.
  void Fill(ModelCache& cache, const Model& model) {
    const auto replica = Open(cache, model);
    ASSERT_TRUE(cache.Reserve(replica.get(), kAll).ok());
    for (int i = 0; i < kBlocks; ++i) {
      ASSERT_TRUE(replica->Store(i, model.Block(i)).ok());
    }
  }

  bool IsThere(const Model& model) {
    return fs::exists(folder_ + "/models/" + model.id());
  }

  // Says when a replica was last used.
  void SetUsed(const Model& model, int seconds_ago) {
    fs::last_write_time(
        folder_ + "/models/" + model.id() + "/used",
        fs::file_time_type::clock::now() - std::chrono::seconds(seconds_ago));
  }

  std::string folder_;
};

TEST_F(ModelCacheTest, AReplicaIsSparseAndBytesLieWhereTheyDo) {
  const Model model(1);
  const auto cache = Create();
  const auto replica = Open(*cache, model);
  struct stat info;
  ASSERT_EQ(stat(replica->path().c_str(), &info), 0);
  EXPECT_EQ(info.st_size, static_cast<int64_t>(model.bytes().size()));
  EXPECT_EQ(info.st_blocks, 0);
  ASSERT_TRUE(cache->Reserve(replica.get(), {0, 3}).ok());
  ASSERT_TRUE(replica->Store(0, model.Block(0)).ok());
  ASSERT_TRUE(replica->Store(3, model.Block(3)).ok());
  ASSERT_EQ(stat(replica->path().c_str(), &info), 0);
  EXPECT_LT(info.st_blocks * 512, 5 * kMiB);
  std::ifstream file(replica->path(), std::ios::binary);
  std::vector<char> bytes(model.bytes().size());
  file.read(bytes.data(), bytes.size());
  for (int64_t i = 0; i < 11 * kMiB; ++i) {
    const bool is_there = i < 100 || i >= 7 * kMiB;
    ASSERT_EQ(static_cast<uint8_t>(bytes[i]), is_there ? model.bytes()[i] : 0)
        << i;
  }
}

TEST_F(ModelCacheTest, ReadsWhatItHasAndNothingElse) {
  const Model model(1);
  const auto cache = Create();
  const auto replica = Open(*cache, model);
  for (const int i : {0, 1, 2, 4}) {
    ASSERT_TRUE(replica->Store(i, model.Block(i)).ok());
  }
  std::vector<uint8_t> out;
  const auto read = [&](int64_t offset, int64_t bytes) {
    out.assign(bytes, 0);
    return replica->Read(0, offset, absl::MakeSpan(out));
  };
  // The header and both blocks of `a`, which follow each other.
  ASSERT_TRUE(read(50, 6 * kMiB + 50).ok());
  EXPECT_TRUE(std::equal(out.begin(), out.end(), model.bytes().begin() + 50));
  EXPECT_TRUE(absl::IsNotFound(read(50, 6 * kMiB + 51)));  // A gap.
  EXPECT_TRUE(absl::IsNotFound(read(7 * kMiB, 1)));
  EXPECT_TRUE(absl::IsNotFound(read(11 * kMiB - 1, 2)));
  ASSERT_TRUE(read(11 * kMiB, 2 * kMiB).ok());
  EXPECT_EQ(out[0], model.bytes()[11 * kMiB]);
}

TEST_F(ModelCacheTest, WhatWasStoredIsThereForTheNextProcessAndNothingMore) {
  const Model model(1);
  {
    const auto cache = Create();
    const auto replica = Open(*cache, model);
    ASSERT_TRUE(cache->Reserve(replica.get(), kAll).ok());
    ASSERT_TRUE(replica->Store(2, model.Block(2)).ok());
  }
  const auto cache = Create();
  // Without the manifest: it is in the cache.
  const auto replica = cache->Open(model.id(), "");
  ASSERT_TRUE(replica.ok()) << replica.status();
  for (int i = 0; i < kBlocks; ++i) {
    EXPECT_EQ((*replica)->Has(i), i == 2) << i;
    EXPECT_FALSE((*replica)->MustRecheck(i));
  }
  EXPECT_TRUE(absl::IsNotFound(cache->Open(Model(2).id(), "").status()));
  EXPECT_FALSE(IsThere(Model(2)));
  EXPECT_EQ(cache->Find("../.."), nullptr);
  EXPECT_NE(cache->Find(model.id()), nullptr);
}

TEST_F(ModelCacheTest, TwoProcessesFillOneReplica) {
  const Model model(1);
  const auto cache = Create();
  const auto replica = Open(*cache, model);
  const pid_t child = fork();
  if (child == 0) {
    const auto other = ModelCache::Create({folder_, 1000 * kMiB});
    const auto same = (*other)->Open(model.id(), "");
    _exit(same.ok() && (*other)->Reserve(same->get(), kAll).ok() &&
                  (*same)->Store(1, model.Block(1)).ok()
              ? 0
              : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_TRUE(replica->Has(1));
  EXPECT_FALSE(replica->Has(2));
  std::vector<uint8_t> out(model.Block(1).size());
  ASSERT_TRUE(replica->Read(0, 100, absl::MakeSpan(out)).ok());
  EXPECT_TRUE(absl::MakeConstSpan(out) == model.Block(1));
}

TEST_F(ModelCacheTest, AfterTheMachineWasStartedAgainBlocksAreRechecked) {
  const Model model(1);
  Fill(*Create(), model);
  const std::string states = folder_ + "/models/" + model.id() + "/blocks";
  {
    std::fstream file(states, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(20);  // Within the boot id.
    file << "another";
  }
  const auto cache = Create();
  const auto replica = Open(*cache, model);
  for (int i = 0; i < kBlocks; ++i) {
    EXPECT_FALSE(replica->Has(i));
    EXPECT_TRUE(replica->MustRecheck(i));
  }
  replica->SetRechecked(1, true);
  replica->SetRechecked(2, false);
  EXPECT_TRUE(replica->Has(1));
  EXPECT_FALSE(replica->Has(2));
  EXPECT_FALSE(replica->MustRecheck(2));
}

TEST_F(ModelCacheTest, AReplicaThatSomebodyCutIsEmpty) {
  const Model model(1);
  Fill(*Create(), model);
  fs::resize_file(folder_ + "/models/" + model.id() + "/files/model.gguf", 10);
  const auto cache = Create();
  const auto replica = Open(*cache, model);
  for (int i = 0; i < kBlocks; ++i) EXPECT_FALSE(replica->Has(i));
  EXPECT_EQ(fs::file_size(replica->path()), model.bytes().size());
}

TEST_F(ModelCacheTest, ADamagedManifestIsWrittenAnew) {
  const Model model(1);
  Fill(*Create(), model);
  const std::string path = folder_ + "/models/" + model.id() + "/manifest";
  fs::resize_file(path, 10);
  const auto cache = Create();
  EXPECT_TRUE(absl::IsNotFound(cache->Open(model.id(), "").status()));
  EXPECT_TRUE(
      absl::IsDataLoss(cache->Open(model.id(), Model(2).text()).status()));
  EXPECT_TRUE(Open(*cache, model)->Has(0));
}

TEST_F(ModelCacheTest, ModelsUsedLongestAgoMakeRoom) {
  const Model a(1);
  const Model b(2);
  const Model c(3);
  const auto cache = Create(30 * kMiB);
  Fill(*cache, a);
  Fill(*cache, b);
  SetUsed(a, 10);
  SetUsed(b, 20);
  Fill(*cache, c);
  EXPECT_TRUE(IsThere(a));
  EXPECT_FALSE(IsThere(b));
  EXPECT_TRUE(IsThere(c));
  // To use one is to use it now.
  SetUsed(c, 5);
  Open(*cache, a);
  Fill(*cache, b);
  EXPECT_TRUE(IsThere(a));
  EXPECT_FALSE(IsThere(c));
}

TEST_F(ModelCacheTest, WhatIsInUseStaysAndTheLimitIsNamed) {
  const Model a(1);
  const Model b(2);
  const auto cache = Create(20 * kMiB);
  Fill(*cache, a);
  const auto in_use = Open(*cache, a);
  // Of another process too.
  const auto other = Create(20 * kMiB);
  const auto replica = Open(*other, b);
  const absl::Status status = other->Reserve(replica.get(), kAll);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_TRUE(absl::StrContains(status.message(), "--cache_max_bytes"));
  EXPECT_TRUE(IsThere(a));
  EXPECT_TRUE(in_use->Has(4));
  // A smaller stage has room.
  EXPECT_TRUE(other->Reserve(replica.get(), {0, 1}).ok());
}

TEST_F(ModelCacheTest, AModelThatCannotFitIsRefusedBeforeAnythingIsWritten) {
  const Model model(1);
  const auto cache = Create(11 * kMiB);
  const auto replica = Open(*cache, model);
  const absl::Status status = cache->Reserve(replica.get(), kAll);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  struct stat info;
  ASSERT_EQ(stat(replica->path().c_str(), &info), 0);
  EXPECT_EQ(info.st_blocks, 0);
}

TEST_F(ModelCacheTest, AFolderThatCannotBeWrittenToIsSaidAtOnce) {
  const auto cache = ModelCache::Create({"/proc/no/folder", 1});
  EXPECT_TRUE(absl::IsInvalidArgument(cache.status())) << cache.status();
  EXPECT_TRUE(
      absl::IsInvalidArgument(ModelCache::Create({folder_, 0}).status()));
}

}  // namespace
}  // namespace tern
