#ifndef MODEL_GGUF_TYPES_H_
#define MODEL_GGUF_TYPES_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace tern {

// Value types of GGUF metadata.
enum GgufValueType : uint32_t {
  kGgufUint8 = 0,
  kGgufInt8 = 1,
  kGgufUint16 = 2,
  kGgufInt16 = 3,
  kGgufUint32 = 4,
  kGgufInt32 = 5,
  kGgufFloat32 = 6,
  kGgufBool = 7,
  kGgufString = 8,
  kGgufArray = 9,
  kGgufUint64 = 10,
  kGgufInt64 = 11,
  kGgufFloat64 = 12,
};

// What `tokenizer.ggml.token_type` says of a token.
enum GgufTokenType : int32_t {
  kGgufTokenNormal = 1,
  kGgufTokenUnknown = 2,
  kGgufTokenControl = 3,
  kGgufTokenUserDefined = 4,
  kGgufTokenUnused = 5,
  kGgufTokenByte = 6,
};

// Bytes of one value of a type of fixed size; 0 for strings, arrays and ids
// that are no type.
int GgufValueBytes(uint32_t type);

// The name of a value type, such as "uint32"; "type 99" when there is none.
std::string GgufValueName(uint32_t type);

// The name of a tensor's element type, such as "I2_S"; "type 77" when there is
// none. Where two projects gave one id to two types, the one that
// GgufTensorBytes() takes it for.
std::string GgufTypeName(uint32_t type);

// Bytes of a tensor of `type` and `dims` (each at least 1, product at most
// 2^48), of which the file has `extent`: the distance to the next tensor's
// offset, or to the end of the file. `alignment` is the file's. The extent
// tells types apart that share an id, and nothing else: the caller compares it
// with the result.
//
// INVALID_ARGUMENT when the shape does not fit the blocks of the type;
// UNIMPLEMENTED when the size is not known. The message names the type and not
// the tensor.
absl::StatusOr<uint64_t> GgufTensorBytes(uint32_t type,
                                         absl::Span<const int64_t> dims,
                                         uint64_t extent, uint64_t alignment);

}  // namespace tern

#endif  // MODEL_GGUF_TYPES_H_
