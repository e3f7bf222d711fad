#include "worker/worker.h"

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/testing/tiny_model.h"
#include "util/credentials.h"

namespace tern {
namespace {

Worker::Options GoodOptions() {
  Worker::Options options;
  options.models = {{testing::WriteTinyModel({}), ""}};
  options.n_threads = 1;
  options.memory_bytes = 1 << 30;
  return options;
}

TEST(Worker, ListensWhereItSays) {
  const auto worker = Worker::Create(GoodOptions());
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_GT((*worker)->port(), 0);
  EXPECT_EQ((*worker)->address(),
            absl::StrCat("127.0.0.1:", (*worker)->port()));
}

TEST(Worker, AdvertisesWhatItIsTold) {
  Worker::Options options = GoodOptions();
  options.advertise_address = "worker-7.pods:7601";
  const auto worker = Worker::Create(options);
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ((*worker)->address(), "worker-7.pods:7601");
}

TEST(Worker, ThreadsAndMemoryComeFromTheMachine) {
  Worker::Options options = GoodOptions();
  options.n_threads = 0;
  options.memory_bytes = 0;
  EXPECT_TRUE(Worker::Create(options).ok());
}

TEST(Worker, SenselessOptionsAreRefused) {
  Worker::Options options = GoodOptions();
  options.n_threads = -1;
  EXPECT_TRUE(absl::IsInvalidArgument(Worker::Create(options).status()));
  options = GoodOptions();
  options.memory_bytes = -1;
  EXPECT_TRUE(absl::IsInvalidArgument(Worker::Create(options).status()));
  options = GoodOptions();
  options.pin = "yes";
  EXPECT_TRUE(absl::IsInvalidArgument(Worker::Create(options).status()));
  options = GoodOptions();
  options.pin = "on";
  options.n_threads = 1024;
  EXPECT_TRUE(absl::IsInvalidArgument(Worker::Create(options).status()));
  options = GoodOptions();
  options.isa = "mmx";
  EXPECT_TRUE(absl::IsInvalidArgument(Worker::Create(options).status()));
  options = GoodOptions();
  options.weights_packing = "3bit";
  EXPECT_TRUE(absl::IsInvalidArgument(Worker::Create(options).status()));
  options = GoodOptions();
  options.isa = "avx2";
  options.weights_packing = "base3";
  EXPECT_TRUE(absl::IsInvalidArgument(Worker::Create(options).status()));
}

TEST(Worker, AMissingModelIsNotFound) {
  Worker::Options options = GoodOptions();
  options.models[0].path = "/nowhere/model.gguf";
  EXPECT_TRUE(absl::IsNotFound(Worker::Create(options).status()));
}

TEST(Worker, AFileThatIsNoModelIsRefused) {
  Worker::Options options = GoodOptions();
  const uint8_t bytes[] = {'n', 'o'};
  options.models[0].path = testing::WriteTempFile(bytes);
  EXPECT_FALSE(Worker::Create(options).ok());
}

TEST(Worker, PlaintextBeyondLoopbackIsRefused) {
  Worker::Options options = GoodOptions();
  options.listen = "0.0.0.0:0";
  EXPECT_TRUE(absl::IsFailedPrecondition(Worker::Create(options).status()));
  options.credentials.insecure = true;
  const auto worker = Worker::Create(options);
  ASSERT_TRUE(worker.ok()) << worker.status();
  // All addresses are no address that others could call.
  EXPECT_EQ((*worker)->address().find("0.0.0.0"), std::string::npos);
}

TEST(Worker, APortThatIsTakenIsUnavailable) {
  const auto first = Worker::Create(GoodOptions());
  ASSERT_TRUE(first.ok());
  Worker::Options options = GoodOptions();
  options.listen = (*first)->address();
  EXPECT_TRUE(absl::IsUnavailable(Worker::Create(options).status()));
}

TEST(Worker, ShutdownMayBeRepeated) {
  const auto worker = Worker::Create(GoodOptions());
  ASSERT_TRUE(worker.ok());
  (*worker)->Shutdown();
  (*worker)->Shutdown();
}

}  // namespace
}  // namespace tern
