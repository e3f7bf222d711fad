#ifndef MODEL_TERNARY_CODEC_H_
#define MODEL_TERNARY_CODEC_H_

#include <cstdint>

#include "absl/strings/string_view.h"

namespace tern {

// Formats of ternary matrices in GGUF files. Each is a stream of blocks; rows
// follow one another without a gap, so that a weight is known by its place in
// the stream, row * n_in + column. Pure functions: safe on any threads.
//
// Weights are codes w + 1 in {0, 1, 2}, times a scale.
enum class TernaryFormat {
  // Blocks of 128 weights in 32 bytes: byte p has the weights p, 32 + p, 64 +
  // p,
  // 96 + p in bits 7:6, 5:4, 3:2, 1:0. Rows may begin within a block. Behind
  // the
  // last block: a float32 scale, and 28 bytes that mean nothing.
  kI2S,
  // Blocks of 256 weights in 54 bytes. A byte holds five digits of base 3, the
  // first the most significant: byte = ceil(value * 256 / 243). Bytes 0..31
  // have
  // the weights 32 k + p as digit k of byte p, bytes 32..47 the weights
  // 160 + 16 k + p, and bytes 48..51 the weights 240 + 4 k + p and a fifth
  // digit
  // that is 0. A float16 scale follows.
  kTQ1_0,
  // Blocks of 256 weights in 66 bytes: two halves of 128 in 32 bytes, byte p
  // with the weights p, 32 + p, 64 + p, 96 + p in bits 1:0, 3:2, 5:4, 7:6. A
  // float16 scale follows.
  kTQ2_0,
};

// "I2_S", "TQ1_0", "TQ2_0".
absl::string_view TernaryFormatName(TernaryFormat format);

// Weights in a block.
int TernaryBlockWeights(TernaryFormat format);

// Bytes of n weights, scales included.
// REQUIRES: n is a multiple of TernaryBlockWeights(format).
int64_t TernaryBytes(TernaryFormat format, int64_t n);

// The scale of a matrix of n weights, where blocks agree; DecodeTernary() finds
// those that do not. kI2S: its scale. Others: that of the first block whose
// scale is not 0, or 0 when there is none. Can be any float, NaN included.
//
// data: TernaryBytes(format, n) bytes, of any alignment.
float TernaryScale(TernaryFormat format, const uint8_t* data, int64_t n);

enum class TernaryFault {
  kNone,
  // No code: two bits that are 3, a byte of kTQ1_0 that no five digits give, or
  // a fifth digit that should be 0.
  kCode,
  // A block whose scale is neither 0 nor that of the matrix.
  kScale,
};

struct TernaryResult {
  TernaryFault fault;
  // The first weight of those asked for that has the fault, else -1.
  int64_t weight;
};

// Decodes weights [begin, end) of a matrix to codes.
//
// scale: of the matrix, from TernaryScale(); not used for kI2S.
// codes: [end - begin], each 0, 1 or 2 unless there is a fault: then anything.
//
// A block whose scale is 0, of either sign, has weights 0 whatever its bytes
// say: code 1, and no fault.
TernaryResult DecodeTernary(TernaryFormat format, const uint8_t* data,
                            float scale, int64_t begin, int64_t end,
                            uint8_t* codes);

// The inverse: n codes and their scale to TernaryBytes(format, n) bytes, as the
// programs that the formats come from write them. kI2S: zeros where bytes mean
// nothing. Others: the scale rounds to float16, and blocks of zeros have the
// scale 0.
//
// REQUIRES: n is a multiple of TernaryBlockWeights(format); codes below 3;
// finite scale, within float16 unless kI2S.
void EncodeTernary(TernaryFormat format, const uint8_t* codes, int64_t n,
                   float scale, uint8_t* data);

}  // namespace tern

#endif  // MODEL_TERNARY_CODEC_H_
