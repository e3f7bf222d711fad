#include "coordinator/record_file.h"

#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

using ::testing::HasSubstr;

class RecordFileTest : public ::testing::Test {
 protected:
  RecordFileTest()
      : path_(absl::StrCat(
            ::testing::TempDir(), "/records-",
            ::testing::UnitTest::GetInstance()->current_test_info()->name())) {}

  void Write(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary | std::ios::trunc) << bytes;
  }

  absl::StatusOr<int64_t> Read() {
    payloads_.clear();
    return ReadRecords(path_, [this](absl::string_view payload) {
      payloads_.emplace_back(payload.data(), payload.size());
      return absl::OkStatus();
    });
  }

  static std::string FileOf(const std::vector<std::string>& payloads) {
    std::string bytes(kRecordFileMagic.data(), kRecordFileMagic.size());
    for (const std::string& payload : payloads) AppendRecord(payload, &bytes);
    return bytes;
  }

  bool IsPrefix(const std::vector<std::string>& of) const {
    return payloads_.size() <= of.size() &&
           std::equal(payloads_.begin(), payloads_.end(), of.begin());
  }

  const std::string path_;
  std::vector<std::string> payloads_;
};

// The bytes of a record, worked out by hand: CRC-32C of "123456789" is
// e3069283 (RFC 3720's catalogue value).
TEST_F(RecordFileTest, ARecordIsLengthChecksumsAndPayload) {
  std::string record;
  AppendRecord("123456789", &record);
  EXPECT_EQ(record.substr(0, 8), std::string("\x09\0\0\0\x83\x92\x06\xe3", 8));
  EXPECT_EQ(record.substr(12), "123456789");
}

TEST_F(RecordFileTest, GivesBackWhatWasWritten) {
  const std::vector<std::string> payloads = {"a", "", std::string(100000, 'x'),
                                             std::string(20, '\0')};
  Write(FileOf(payloads));
  const auto valid = Read();
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_EQ(payloads_, payloads);
  EXPECT_EQ(*valid, static_cast<int64_t>(FileOf(payloads).size()));
}

TEST_F(RecordFileTest, AnyTruncationLeavesThoseBeforeIt) {
  const std::vector<std::string> payloads = {"one", "", "three", "the last"};
  const std::string whole = FileOf(payloads);
  for (size_t size = 0; size <= whole.size(); ++size) {
    Write(whole.substr(0, size));
    const auto valid = Read();
    ASSERT_TRUE(valid.ok()) << size << ": " << valid.status();
    ASSERT_TRUE(IsPrefix(payloads)) << size;
    ASSERT_LE(*valid, static_cast<int64_t>(size));
    // What is said to be whole is.
    Write(whole.substr(0, *valid));
    const size_t n = payloads_.size();
    ASSERT_TRUE(Read().ok());
    ASSERT_EQ(payloads_.size(), n);
  }
}

TEST_F(RecordFileTest, AnyFlippedByteGivesAPrefixOrAnError) {
  const std::vector<std::string> payloads = {"one", "", "three", "the last"};
  const std::string whole = FileOf(payloads);
  const size_t last = FileOf({"one", "", "three"}).size();
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const int bit : {0, 7}) {
      std::string bytes = whole;
      bytes[i] = static_cast<char>(bytes[i] ^ (1 << bit));
      Write(bytes);
      const auto valid = Read();
      ASSERT_TRUE(IsPrefix(payloads)) << i;
      ASSERT_LT(payloads_.size(), payloads.size()) << i;
      if (i < last) {
        // Nothing in the middle is passed over in silence.
        ASSERT_EQ(valid.status().code(), absl::StatusCode::kDataLoss) << i;
      }
    }
  }
}

TEST_F(RecordFileTest, AnythingAtAllGivesAPrefixOrAnError) {
  // Records of more than 19 bytes: one that is gone as a whole leaves no trace.
  const std::vector<std::string> payloads = {"the first", "the second",
                                             std::string(300, 'y'), "the last"};
  const std::string whole = FileOf(payloads);
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = whole;
    const size_t at = random() % bytes.size();
    const size_t n = random() % 20;
    switch (random() % 4) {
      case 0:  // Some bytes become others.
        for (size_t i = at; i < std::min(at + n, bytes.size()); ++i) {
          bytes[i] = static_cast<char>(random());
        }
        break;
      case 1:
        bytes.erase(at, n);
        break;
      case 2:
        bytes.insert(at, std::string(n, static_cast<char>(random())));
        break;
      default:  // A file system's zeros in place of what was never written.
        std::fill(bytes.begin() + at, bytes.end(), '\0');
    }
    Write(bytes);
    const auto valid = Read();
    ASSERT_TRUE(IsPrefix(payloads));
  }
}

TEST_F(RecordFileTest, ZerosAtTheEndWereNeverWritten) {
  const std::string whole = FileOf({"one", "two"});
  Write(whole + std::string(4096, '\0'));
  const auto valid = Read();
  ASSERT_TRUE(valid.ok()) << valid.status();
  EXPECT_EQ(*valid, static_cast<int64_t>(whole.size()));
}

TEST_F(RecordFileTest, DamageNamesFileOffsetAndTheWayOut) {
  std::string bytes = FileOf({"one", "two"});
  bytes[8 + 12] ^= 1;  // of "one"
  Write(bytes);
  const absl::Status status = Read().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path_));
  EXPECT_THAT(std::string(status.message()), HasSubstr("at byte 8"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("move the file away"));
}

TEST_F(RecordFileTest, SaysWhenThereIsNoFileOrAnotherKindOfFile) {
  EXPECT_EQ(ReadRecords(path_ + "-none",
                        [](absl::string_view) { return absl::OkStatus(); })
                .status()
                .code(),
            absl::StatusCode::kNotFound);
  Write("GGUF and then something");
  EXPECT_EQ(Read().status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tern
