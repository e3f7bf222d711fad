#include "worker/philox.h"

#include "absl/numeric/int128.h"

namespace tern {
namespace {

// Multipliers and Weyl increments of the paper.
constexpr uint64_t kMultiplier0 = 0xD2E7470EE14C6C93;
constexpr uint64_t kMultiplier1 = 0xCA5A826395121157;
constexpr uint64_t kIncrement0 = 0x9E3779B97F4A7C15;
constexpr uint64_t kIncrement1 = 0xBB67AE8584CAA73B;
constexpr int kRounds = 10;

}  // namespace

std::array<uint64_t, 4> Philox4x64(std::array<uint64_t, 4> counter,
                                   std::array<uint64_t, 2> key) {
  for (int round = 0; round < kRounds; ++round) {
    const absl::uint128 a = absl::uint128(kMultiplier0) * counter[0];
    const absl::uint128 b = absl::uint128(kMultiplier1) * counter[2];
    counter = {
        absl::Uint128High64(b) ^ counter[1] ^ key[0], absl::Uint128Low64(b),
        absl::Uint128High64(a) ^ counter[3] ^ key[1], absl::Uint128Low64(a)};
    key[0] += kIncrement0;
    key[1] += kIncrement1;
  }
  return counter;
}

}  // namespace tern
