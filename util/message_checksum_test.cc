#include "util/message_checksum.h"

#include <string>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/tern/v1/worker.pb.h"
#include "util/crc32c.h"

namespace tern {
namespace {

v1::StepPlan Plan() {
  v1::StepPlan plan;
  plan.set_model("demo");
  plan.set_pipeline_id("demo/0");
  plan.set_epoch(7);
  plan.set_step_id(3);
  v1::SequenceSetup* const setup = plan.add_new_sequences();
  setup->set_sequence_id(5);
  for (const int id : {900, 3, 77, 41, 12}) {
    (*setup->mutable_sampler()->mutable_logit_bias())[id] = -0.5f;
  }
  v1::StepRow* const row = plan.add_rows();
  row->set_sequence_id(5);
  for (const int id : {1, 2, 300}) row->mutable_tokens()->add_ids(id);
  return plan;
}

TEST(MessageChecksum, IsThatOfTheBytes) {
  v1::StepRow row;
  row.set_sequence_id(5);
  row.set_position(300);
  // Fields 1 and 2, varints.
  EXPECT_EQ(ChecksumOf(row), Crc32c("\x08\x05\x10\xac\x02", 5));
  EXPECT_EQ(ChecksumOf(v1::StepRow()), Crc32c("", 0));
}

TEST(MessageChecksum, AMessageThatTravelledUnchangedPasses) {
  v1::StepPlan plan = Plan();
  SetChecksum(&plan);
  ASSERT_TRUE(plan.has_crc32c());
  v1::StepPlan come;
  ASSERT_TRUE(come.ParseFromString(plan.SerializeAsString()));
  EXPECT_TRUE(CheckChecksum("a plan", come).ok());
  EXPECT_TRUE(TakeChecksum("a plan", &come).ok());
  EXPECT_FALSE(come.has_crc32c());
  // Another order of the map, and setting it again, change nothing.
  SetChecksum(&plan);
  v1::StepPlan again = Plan();
  auto& bias =
      *again.mutable_new_sequences(0)->mutable_sampler()->mutable_logit_bias();
  bias.clear();
  for (const int id : {12, 41, 77, 3, 900}) bias[id] = -0.5f;
  SetChecksum(&again);
  EXPECT_EQ(again.crc32c(), plan.crc32c());
}

// What still parses is another message only where the checksum says so.
TEST(MessageChecksum, NoSingleBitChangesAMessageUnnoticed) {
  v1::StepPlan plan = Plan();
  const std::string meant = plan.SerializeAsString();
  SetChecksum(&plan);
  const std::string bytes = plan.SerializeAsString();
  int n_damaged = 0, n_unparsed = 0;
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    v1::StepPlan come;
    if (!come.ParseFromString(damaged)) {
      ++n_unparsed;
      continue;
    }
    const absl::Status status = TakeChecksum("the plan", &come);
    if (!status.ok()) {
      ++n_damaged;
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      EXPECT_THAT(status.message(), ::testing::HasSubstr("the plan"));
      continue;
    }
    come.DiscardUnknownFields();
    v1::StepPlan sent = Plan();
    EXPECT_EQ(ChecksumOf(come), ChecksumOf(sent)) << "bit " << bit;
  }
  EXPECT_GT(n_damaged, static_cast<int>(4 * bytes.size()));
  EXPECT_GT(n_unparsed, 0);
}

TEST(MessageChecksum, AMessageOfAnEarlierReleasePasses) {
  EXPECT_TRUE(CheckChecksum("a plan", Plan()).ok());
}

// A field of a later release, with a number above those known.
TEST(MessageChecksum, UnknownFieldsCount) {
  v1::StepResult later;
  later.set_step_id(4);
  std::string bytes = later.SerializeAsString() + "\x98\x01\x2a";  // field 19
  later.set_crc32c(Crc32c(bytes.data(), bytes.size()));
  v1::StepResult only_checksum;
  only_checksum.set_crc32c(later.crc32c());
  bytes += only_checksum.SerializeAsString();
  v1::StepResult come;
  ASSERT_TRUE(come.ParseFromString(bytes));
  EXPECT_TRUE(CheckChecksum("a result", come).ok());
  come.DiscardUnknownFields();
  EXPECT_FALSE(CheckChecksum("a result", come).ok());
}

}  // namespace
}  // namespace tern
