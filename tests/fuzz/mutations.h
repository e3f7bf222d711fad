#ifndef TESTS_FUZZ_MUTATIONS_H_
#define TESTS_FUZZ_MUTATIONS_H_

#include <random>

#include "tests/testing/gguf_builder.h"

namespace tern {

// Flips, overwrites, cuts, repeats and moves bytes, a few at a time, and puts
// in numbers that break arithmetic.
testing::Bytes Mutated(testing::Bytes bytes, std::mt19937* rng);

}  // namespace tern

#endif  // TESTS_FUZZ_MUTATIONS_H_
