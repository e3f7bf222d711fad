#include "coordinator/operator_store.h"

#include <stdlib.h>
#include <sys/stat.h>

#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "coordinator/operator_state_proto.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

class OperatorStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/operators-XXXXXX");
    ASSERT_NE(mkdtemp(&folder_[0]), nullptr);
    path_ = folder_ + "/operators.state";
  }

  absl::Status Open() {
    store_.reset();
    auto store = OperatorStore::Open(folder_);
    if (store.ok()) store_ = *std::move(store);
    return store.status();
  }

  absl::Status Update(std::function<void(OperatorState*)> change) {
    absl::Status status;
    absl::Notification done;
    store_->Update(std::move(change), [&](const absl::Status& written) {
      status = written;
      done.Notify();
    });
    done.WaitForNotification();
    return status;
  }

  std::string FileBytes() const {
    std::ifstream file(path_, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  void WriteFile(const std::string& bytes) const {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }

  std::string folder_;
  std::string path_;
  std::unique_ptr<OperatorStore> store_;
};

TEST_F(OperatorStoreTest, GivesBackWhatItWasTold) {
  ASSERT_TRUE(Open().ok());
  EXPECT_TRUE(store_->state().models.empty());
  ASSERT_TRUE(Update([](OperatorState* state) {
                OperatorState::LoadedModel model;
                model.name = "a";
                model.file = "a.gguf";
                state->models.push_back(model);
                model.name = "b";
                model.file = "c";
                model.n_stages = 3;
                model.kv_cache_tokens = int64_t{1} << 40;
                state->models.push_back(model);
              }).ok());
  ASSERT_TRUE(Update([](OperatorState* state) {
                state->cordoned = {"worker-1", "worker-2"};
              }).ok());
  ASSERT_TRUE(Open().ok());
  const OperatorState state = store_->state();
  ASSERT_EQ(state.models.size(), 2u);
  EXPECT_EQ(state.models[0].name, "a");
  EXPECT_EQ(state.models[0].file, "a.gguf");
  EXPECT_FALSE(state.models[0].n_stages.has_value());
  EXPECT_FALSE(state.models[0].kv_cache_tokens.has_value());
  EXPECT_EQ(state.models[1].name, "b");
  EXPECT_EQ(state.models[1].n_stages, 3);
  EXPECT_EQ(state.models[1].kv_cache_tokens, int64_t{1} << 40);
  EXPECT_EQ(state.cordoned.size(), 2u);
  struct stat file;
  ASSERT_EQ(stat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
}

// Whichever byte is another one, and wherever the file ends.
TEST_F(OperatorStoreTest, ADamagedFileIsRefusedAndSaysWhatToDo) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Update([](OperatorState* state) {
                state->cordoned = {"worker-1"};
              }).ok());
  const std::string whole = FileBytes();
  for (size_t i = 0; i < whole.size(); ++i) {
    std::string damaged = whole;
    damaged[i] ^= 4;
    WriteFile(damaged);
    const absl::Status status = Open();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << i;
    EXPECT_NE(status.message().find("away to start"), std::string::npos)
        << status;
    WriteFile(whole.substr(0, i));
    EXPECT_EQ(Open().code(), absl::StatusCode::kDataLoss) << i;
  }
  WriteFile(whole);
  EXPECT_TRUE(Open().ok());
}

TEST_F(OperatorStoreTest, SaysWhenItCannotWriteAndKeepsTheOldFile) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(
      Update([](OperatorState* state) { state->cordoned = {"a"}; }).ok());
  // A folder in the place of the new file.
  const std::string in_the_way = path_ + ".new";
  ASSERT_EQ(mkdir(in_the_way.c_str(), 0700), 0);
  EXPECT_EQ(
      Update([](OperatorState* state) { state->cordoned = {"b"}; }).code(),
      absl::StatusCode::kUnavailable);
  ASSERT_EQ(rmdir(in_the_way.c_str()), 0);
  auto reader = OperatorStore::Open(folder_);
  ASSERT_TRUE(reader.ok());
  EXPECT_EQ((*reader)->state().cordoned.count("a"), 1u);
  // It goes with the next.
  ASSERT_TRUE(
      Update([](OperatorState* state) { state->cordoned.insert("c"); }).ok());
  ASSERT_TRUE(Open().ok());
  EXPECT_EQ(store_->state().cordoned.count("b"), 1u);
  EXPECT_EQ(store_->state().cordoned.count("c"), 1u);
}

}  // namespace
}  // namespace tern
