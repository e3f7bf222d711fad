#include "util/crc32c.h"

#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

using Function = uint32_t (*)(const void*, size_t, uint32_t);

std::vector<Function> Functions() {
  std::vector<Function> functions = {&internal::Crc32cTable, &Crc32c};
  if (internal::HasCrc32cInstruction()) {
    functions.push_back(&internal::Crc32cInstruction);
  }
  return functions;
}

uint32_t Of(Function f, const std::string& bytes, uint32_t crc = 0) {
  return f(bytes.data(), bytes.size(), crc);
}

TEST(Crc32c, EqualsTheVectorsOfRfc3720) {
  std::string up(32, '\0');
  std::iota(up.begin(), up.end(), 0);
  const std::string down(up.rbegin(), up.rend());
  // An iSCSI read command, the last of the RFC's examples.
  std::string command(48, '\0');
  command[0] = '\x01';
  command[1] = '\xc0';
  command[16] = '\x14';
  command[22] = '\x04';
  command[27] = '\x14';
  command[31] = '\x18';
  command[32] = '\x28';
  command[40] = '\x02';
  for (Function f : Functions()) {
    EXPECT_EQ(Of(f, std::string(32, '\0')), 0x8a9136aau);
    EXPECT_EQ(Of(f, std::string(32, '\xff')), 0x62a8ab43u);
    EXPECT_EQ(Of(f, up), 0x46dd794eu);
    EXPECT_EQ(Of(f, down), 0x113fdb5cu);
    EXPECT_EQ(Of(f, command), 0xd9963a56u);
    EXPECT_EQ(Of(f, "123456789"), 0xe3069283u);
    EXPECT_EQ(Of(f, ""), 0u);
  }
}

TEST(Crc32c, GoesOnOverPiecesCutAnywhere) {
  const std::string text = "the checksum of a tensor that came in two slices";
  const uint32_t whole = Crc32c(text.data(), text.size());
  for (Function f : Functions()) {
    for (size_t cut = 0; cut <= text.size(); ++cut) {
      EXPECT_EQ(Of(f, text.substr(cut), Of(f, text.substr(0, cut))), whole)
          << "cut at " << cut;
    }
  }
}

TEST(Crc32c, TableAndInstructionAgreeOnEveryLengthAndAlignment) {
  if (!internal::HasCrc32cInstruction()) {
    GTEST_SKIP() << "this CPU has no instruction for it";
  }
  std::mt19937 random(1);
  std::string bytes(300, '\0');
  for (char& c : bytes) c = static_cast<char>(random());
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t size = 0; begin + size <= bytes.size(); ++size) {
      const uint32_t start = random();
      ASSERT_EQ(internal::Crc32cTable(bytes.data() + begin, size, start),
                internal::Crc32cInstruction(bytes.data() + begin, size, start))
          << "begin " << begin << " size " << size << " start " << start;
    }
  }
}

TEST(Crc32c, SeesAFlippedBit) {
  std::string bytes(1000, 'x');
  const uint32_t before = Crc32c(bytes.data(), bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] ^= 1 << (i % 8);
    EXPECT_NE(Crc32c(bytes.data(), bytes.size()), before);
    bytes[i] ^= 1 << (i % 8);
  }
}

}  // namespace
}  // namespace tern
