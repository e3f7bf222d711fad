#include "kernels/isa.h"

#include <cstdlib>
#include <string>

#include "gtest/gtest.h"
#include "kernels/kernels.h"

namespace tern {
namespace {

TEST(Isa, NamesParseBack) {
  for (Isa isa :
       {Isa::kRef, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512Vnni256,
        Isa::kAvx512Vnni, Isa::kNeon, Isa::kNeonDotprod, Isa::kNeonI8mm}) {
    Isa parsed;
    ASSERT_TRUE(ParseIsa(IsaName(isa), &parsed)) << IsaName(isa);
    EXPECT_EQ(parsed, isa);
  }
}

TEST(Isa, UnknownNameIsRefused) {
  Isa isa;
  EXPECT_FALSE(ParseIsa("avx", &isa));
  EXPECT_FALSE(ParseIsa("", &isa));
}

TEST(Isa, TheOracleRunsEverywhere) {
  EXPECT_TRUE(IsaSupported(Isa::kRef));
  ASSERT_FALSE(SupportedIsas().empty());
  EXPECT_EQ(SupportedIsas().front(), Isa::kRef);
}

TEST(Isa, EveryTableIsThatOfItsIsaAndComplete) {
  for (Isa isa : SupportedIsas()) {
    const Kernels& k = KernelsFor(isa);
    EXPECT_EQ(k.isa, isa);
    EXPECT_TRUE(k.quantize_token && k.has_packing(TernaryPacking::k2Bit) &&
                k.rms_norm && k.rope_rotate && k.store_kv && k.attend &&
                k.relu2_gate && k.silu_gate && k.add && k.exp_each &&
                k.head_stored && k.head_int8 && k.head_int8_bounds &&
                k.head_int8_groups && k.widen_row && k.quantize_head_row)
        << IsaName(isa);
  }
}

TEST(Isa, TheBestTableIsTheLastSupported) {
  EXPECT_EQ(BestKernels().isa, SupportedIsas().back());
}

// An emulator says in TERN_EXPECTED_ISAS what its processor has.
TEST(Isa, WhatTheProcessorHasIsFound) {
  const char* const expected = std::getenv("TERN_EXPECTED_ISAS");
  if (expected == nullptr) GTEST_SKIP() << "this processor is not known";
  std::string found;
  for (Isa isa : SupportedIsas()) {
    if (!found.empty()) found += ' ';
    found += std::string(IsaName(isa));
  }
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace tern
