#include "blob/content_hash.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "blob/hash_memory.h"
#include "gtest/gtest.h"
#include "model/manifest.h"
#include "model/mapped_file.h"
#include "model/model_file.h"
#include "model/model_source.h"
#include "model/stage_plan.h"
#include "tests/testing/tiny_model.h"
#include "util/sha256.h"

namespace tern {
namespace {

namespace fs = std::filesystem;

std::string NewFolder() {
  std::string folder = absl::StrCat(::testing::TempDir(), "/hash-XXXXXX");
  return mkdtemp(&folder[0]) ? folder : "";
}

void Write(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A file with a header of 3 bytes and a tensor of a block and 5 bytes, with a
// byte of padding between.
ModelFile OneFile(const std::string& path) {
  ModelFile file;
  file.name = "model.gguf";
  file.file = *MappedFile::Open(path);
  file.parts = {{"", 0, 3}, {"t", 4, kManifestBlockBytes + 5}};
  return file;
}

std::string Bytes() {
  std::string bytes = "abc_";
  for (int64_t i = 0; i < kManifestBlockBytes + 5; ++i) {
    bytes.push_back(static_cast<char>(i * 7 + i / 1000));
  }
  return bytes;
}

TEST(ContentHash, HashesPartsBlockByBlockAndNothingBetween) {
  const std::string path = NewFolder() + "/file";
  const std::string bytes = Bytes();
  Write(path, bytes);
  const std::vector<ModelFile> files = {OneFile(path)};
  for (const int n_threads : {1, 4}) {
    HashOptions options;
    options.n_threads = n_threads;
    const auto hashed = HashModel(files, options);
    ASSERT_TRUE(hashed.ok()) << hashed.status();
    const Manifest& manifest = hashed->manifest;
    ASSERT_EQ(manifest.files.size(), 1u);
    EXPECT_EQ(manifest.files[0].bytes, static_cast<int64_t>(bytes.size()));
    ASSERT_EQ(manifest.files[0].parts.size(), 2u);
    EXPECT_EQ(manifest.files[0].parts[0].blocks[0], Sha256("abc", 3));
    const std::vector<Sha256Digest>& blocks = manifest.files[0].parts[1].blocks;
    ASSERT_EQ(blocks.size(), 2u);
    EXPECT_EQ(blocks[0], Sha256(bytes.data() + 4, kManifestBlockBytes));
    EXPECT_EQ(blocks[1], Sha256(bytes.data() + 4 + kManifestBlockBytes, 5));
    EXPECT_EQ(hashed->hashed_bytes, 3 + kManifestBlockBytes + 5);
  }
}

TEST(ContentHash, NamesTheBlocksThatDiffer) {
  const std::string folder = NewFolder();
  std::string bytes = Bytes();
  Write(folder + "/good", bytes);
  const Manifest manifest =
      HashModel({OneFile(folder + "/good")}, {})->manifest;
  bytes[3] = '-';  // Padding.
  bytes[4 + kManifestBlockBytes] ^= 1;
  Write(folder + "/bad", bytes);
  const std::vector<ModelFile> bad = {OneFile(folder + "/bad")};
  const auto checked = CheckModel(bad, manifest, {0, 1, 2}, {});
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->differing, std::vector<int>{2});
  // What nobody needs is not read.
  const auto part = CheckModel(bad, manifest, {0, 1}, {});
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_TRUE(part->differing.empty());
  EXPECT_EQ(part->hashed_bytes, 3 + kManifestBlockBytes);

  Write(folder + "/short", bytes.substr(0, bytes.size() - 1));
  const absl::Status status =
      CheckModel({OneFile(folder + "/short")}, manifest, {0}, {}).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
}

TEST(ContentHash, AFileCutShortIsAnErrorAndNoCrash) {
  const std::string path = NewFolder() + "/file";
  Write(path, Bytes());
  const std::vector<ModelFile> files = {OneFile(path)};
  fs::resize_file(path, 100);
  const absl::Status status = HashModel(files, {}).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
}

TEST(ContentHash, CancelledMeansCancelled) {
  const std::string path = NewFolder() + "/file";
  Write(path, Bytes());
  HashOptions options;
  options.cancelled = [] { return true; };
  EXPECT_TRUE(absl::IsCancelled(HashModel({OneFile(path)}, options).status()));
}

TEST(HashMemory, ASecondProcessRecallsAndAnyChangeForgets) {
  const std::string folder = NewFolder() + "/deep/hashes";
  const FileIdentity file = {1, 2, 300, 4'000'000'000, 5'000'000'000};
  const RangeHashes some = {{{0, 3}, Sha256("abc", 3)}};
  const RangeHashes more = {{{4, 100}, Sha256("d", 1)}};
  const absl::Time later = absl::FromUnixSeconds(7);
  {
    HashMemory memory(folder);
    memory.Remember(file, some, later);
    memory.Remember(file, more, later);
  }
  HashMemory memory(folder);
  RangeHashes both = some;
  both.insert(more.begin(), more.end());
  EXPECT_EQ(memory.Recall(file), both);
  FileIdentity other = file;
  other.changed_ns += 1;
  EXPECT_TRUE(memory.Recall(other).empty());
  other = file;
  other.modified_ns += 1;
  EXPECT_TRUE(memory.Recall(other).empty());
  other = file;
  other.bytes += 1;
  EXPECT_TRUE(memory.Recall(other).empty());
  other = file;
  other.inode += 1;
  EXPECT_TRUE(memory.Recall(other).empty());
}

TEST(HashMemory, AFileThatJustChangedIsNotRemembered) {
  HashMemory memory(NewFolder());
  const FileIdentity file = {1, 2, 3, 10'000'000'000, 0};
  const RangeHashes hashes = {{{0, 3}, Sha256("abc", 3)}};
  memory.Remember(file, hashes, absl::FromUnixSeconds(10));
  memory.Remember(file, hashes, absl::FromUnixMillis(11'999));
  EXPECT_TRUE(memory.Recall(file).empty());
  memory.Remember(file, hashes, absl::FromUnixSeconds(12));
  EXPECT_EQ(memory.Recall(file), hashes);
}

TEST(HashMemory, ATornFileOnDiskIsForgotten) {
  const std::string folder = NewFolder();
  const FileIdentity file = {1, 2, 3, 0, 0};
  HashMemory(folder).Remember(file, {{{0, 3}, Sha256("abc", 3)}},
                              absl::FromUnixSeconds(12));
  const std::string path = folder + "/1-2";
  ASSERT_FALSE(HashMemory(folder).Recall(file).empty());
  fs::resize_file(path, fs::file_size(path) - 5);
  EXPECT_TRUE(HashMemory(folder).Recall(file).empty());
  // A digit that is another one.
  HashMemory(folder).Remember(file, {{{0, 3}, Sha256("abc", 3)}},
                              absl::FromUnixSeconds(12));
  std::fstream stream(path, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(40);
  stream.put('0');
  stream.close();
  EXPECT_TRUE(HashMemory(folder).Recall(file).empty());
}

TEST(HashMemory, WithoutAFolderToWriteToItStillRemembers) {
  HashMemory memory("/proc/no/such/folder");
  const FileIdentity file = {1, 2, 3, 0, 0};
  memory.Remember(file, {{{0, 3}, Sha256("abc", 3)}},
                  absl::FromUnixSeconds(12));
  EXPECT_EQ(memory.Recall(file).size(), 1u);
}

TEST(ContentHash, WhatIsRememberedIsNotReadAgain) {
  const std::string folder = NewFolder();
  Write(folder + "/file", Bytes());
  const std::vector<ModelFile> files = {OneFile(folder + "/file")};
  const FileIdentity file = *files[0].file->Identity();
  HashMemory memory(folder + "/hashes");
  HashOptions options;
  options.memory = &memory;
  const Manifest manifest = HashModel(files, options)->manifest;
  // The file is new, so that nothing was remembered by itself.
  EXPECT_GT(HashModel(files, options)->hashed_bytes, 0);
  const std::vector<ManifestBlock> blocks = manifest.Blocks();
  RangeHashes hashes;
  for (const ManifestBlock& block : blocks) {
    hashes[{block.offset, block.bytes}] = block.hash;
  }
  memory.Remember(file, hashes, absl::Now() + absl::Seconds(10));
  const auto again = HashModel(files, options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->hashed_bytes, 0);
  EXPECT_EQ(SerializeManifest(again->manifest), SerializeManifest(manifest));
  const auto checked = CheckModel(files, manifest, {0, 1, 2}, options);
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->hashed_bytes, 0);
}

// Bytes of the tensors that a stage needs.
int64_t NeededBytes(const ModelSource& source, const StageRange& range) {
  const std::vector<ModelFile> files = *source.OpenFiles();
  int64_t bytes = 0;
  for (const ModelFile& file : files) {
    for (const ModelFile::Part& part : file.parts) {
      if (part.name.empty()) continue;
      if (source.NeedsTensor(part.name, range)) bytes += part.bytes;
    }
  }
  return bytes;
}

TEST(ModelFiles, OfAGgufAreTheSameUnderAnyNameAndStagesShareThemOut) {
  testing::TinyModelOptions options;
  options.tied_head = false;
  const std::string path = testing::WriteTinyModel(options);
  const std::string copy = NewFolder() + "/another name";
  fs::copy_file(path, copy);
  const auto source = ModelSource::Open(path);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto files = (*source)->OpenFiles();
  ASSERT_TRUE(files.ok()) << files.status();
  const auto copied = ModelSource::Open(copy);
  ASSERT_TRUE(copied.ok()) << copied.status();
  const std::string text = SerializeManifest(HashModel(*files, {})->manifest);
  EXPECT_EQ(text, SerializeManifest(
                      HashModel(*(*copied)->OpenFiles(), {})->manifest));
  EXPECT_FALSE(absl::StrContains(text, "another"));
  // Every tensor is in there, once.
  int64_t bytes = 0;
  for (const ModelSource::TensorInfo& tensor : (*source)->tensors()) {
    bytes += tensor.bytes;
  }
  EXPECT_EQ(HashModel(*files, {})->manifest.part_bytes(),
            bytes + (*files)[0].parts[0].bytes);
  // Two stages need every tensor, and none twice.
  EXPECT_EQ(NeededBytes(**source, {0, 1, true, false}) +
                NeededBytes(**source, {1, 2, false, true}),
            bytes);
  EXPECT_GT(NeededBytes(**source, {0, 1, true, false}), 0);
}

TEST(ModelFiles, OfSafetensorsAreAllThatAStageOpens) {
  testing::TinyModelOptions options;
  options.scales = testing::TinyScales::kHalf;
  const std::string folder = testing::WriteTinySafetensors(
      testing::TinySafetensorsModel(options, testing::TinyPacking::kPacked), 2);
  const auto source = ModelSource::Open(folder);
  ASSERT_TRUE(source.ok()) << source.status();
  const auto files = (*source)->OpenFiles();
  ASSERT_TRUE(files.ok()) << files.status();
  int64_t bytes = 0;
  int64_t tensor_bytes = 0;
  for (const ModelFile& file : *files) {
    for (const ModelFile::Part& part : file.parts) {
      if (absl::EndsWith(file.name, ".safetensors") && !part.name.empty()) {
        bytes += part.bytes;
      }
    }
  }
  for (const ModelSource::TensorInfo& tensor : (*source)->tensors()) {
    tensor_bytes += tensor.bytes;
  }
  EXPECT_EQ(bytes, tensor_bytes);
  EXPECT_EQ(files->front().name, "config.json");
  EXPECT_EQ(files->back().name, "tokenizer_config.json");
  // Tied, so that the embedding is both stages'.
  EXPECT_GT(NeededBytes(**source, {0, 1, true, false}) +
                NeededBytes(**source, {1, 2, false, true}),
            tensor_bytes);
  EXPECT_EQ(NeededBytes(**source, {0, 2, true, true}), tensor_bytes);
}

TEST(ModelFiles, OfAModelInMemoryAreNone) {
  const testing::Bytes bytes = testing::TinyModelBytes({});
  const auto source = ModelSource::FromGguf(bytes);
  ASSERT_TRUE(source.ok()) << source.status();
  EXPECT_TRUE(absl::IsFailedPrecondition((*source)->OpenFiles().status()));
}

}  // namespace
}  // namespace tern
