#include "model/gguf_types.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tern {
namespace {

// `row_bytes` precede the blocks of each row.
struct TypeTraits {
  uint32_t id;
  const char* name;
  uint32_t block_elements;
  uint32_t block_bytes;
  uint32_t row_bytes;
};

constexpr TypeTraits kTypes[] = {
    {0, "F32", 1, 4, 0},         {1, "F16", 1, 2, 0},
    {2, "Q4_0", 32, 18, 0},      {3, "Q4_1", 32, 20, 0},
    {6, "Q5_0", 32, 22, 0},      {7, "Q5_1", 32, 24, 0},
    {8, "Q8_0", 32, 34, 0},      {9, "Q8_1", 32, 36, 0},
    {10, "Q2_K", 256, 84, 0},    {11, "Q3_K", 256, 110, 0},
    {12, "Q4_K", 256, 144, 0},   {13, "Q5_K", 256, 176, 0},
    {14, "Q6_K", 256, 210, 0},   {15, "Q8_K", 256, 292, 0},
    {16, "IQ2_XXS", 256, 66, 0}, {17, "IQ2_XS", 256, 74, 0},
    {18, "IQ3_XXS", 256, 98, 0}, {19, "IQ1_S", 256, 50, 0},
    {20, "IQ4_NL", 32, 18, 0},   {21, "IQ3_S", 256, 110, 0},
    {22, "IQ2_S", 256, 82, 0},   {23, "IQ4_XS", 256, 136, 0},
    {24, "I8", 1, 1, 0},         {25, "I16", 1, 2, 0},
    {26, "I32", 1, 4, 0},        {27, "I64", 1, 8, 0},
    {28, "F64", 1, 8, 0},        {29, "IQ1_M", 256, 56, 0},
    {30, "BF16", 1, 2, 0},       {31, "Q4_0_4_4", 32, 18, 0},
    {32, "Q4_0_4_8", 32, 18, 0}, {33, "Q4_0_8_8", 32, 18, 0},
    {34, "TQ1_0", 256, 54, 0},   {35, "TQ2_0", 256, 66, 0},
    {39, "MXFP4", 32, 17, 0},    {134, "IQ1_BN", 64, 13, 2},
    {135, "IQ2_BN", 64, 16, 4},  {335, "IQ2_BN_R4", 64, 16, 4},
};

constexpr uint32_t kI2S = 36;
constexpr uint32_t kI8S = 37;
constexpr uint32_t kTl1 = 38;
constexpr uint32_t kTl2OrMxfp4 = 39;

const TypeTraits* FindTraits(uint32_t type) {
  for (const TypeTraits& traits : kTypes) {
    if (traits.id == type) return &traits;
  }
  return nullptr;
}

// Whether a tensor of `bytes` bytes, alone or with padding behind, takes up
// exactly `extent`.
bool Fills(uint64_t bytes, uint64_t extent, uint64_t alignment) {
  return extent >= bytes && extent - bytes < alignment;
}

absl::Status LookupTableTypeError(const char* name) {
  return absl::UnimplementedError(absl::StrCat(
      "type ", name,
      " cannot be read: its tile sizes are not in the file; convert the model "
      "to I2_S"));
}

}  // namespace

int GgufValueBytes(uint32_t type) {
  switch (type) {
    case kGgufUint8:
    case kGgufInt8:
    case kGgufBool:
      return 1;
    case kGgufUint16:
    case kGgufInt16:
      return 2;
    case kGgufUint32:
    case kGgufInt32:
    case kGgufFloat32:
      return 4;
    case kGgufUint64:
    case kGgufInt64:
    case kGgufFloat64:
      return 8;
    default:
      return 0;
  }
}

std::string GgufValueName(uint32_t type) {
  static constexpr const char* kNames[] = {
      "uint8", "int8",   "uint16", "int16",  "uint32", "int32",  "float32",
      "bool",  "string", "array",  "uint64", "int64",  "float64"};
  return type < sizeof(kNames) / sizeof(kNames[0])
             ? kNames[type]
             : absl::StrCat("type ", type);
}

std::string GgufTypeName(uint32_t type) {
  if (type == kI2S) return "I2_S";
  if (type == kI8S) return "I8_S";
  if (type == kTl1) return "TL1";
  const TypeTraits* traits = FindTraits(type);
  return traits != nullptr ? traits->name : absl::StrCat("type ", type);
}

absl::StatusOr<uint64_t> GgufTensorBytes(uint32_t type,
                                         absl::Span<const int64_t> dims,
                                         uint64_t extent, uint64_t alignment) {
  uint64_t elements = 1;
  for (int64_t dim : dims) elements *= static_cast<uint64_t>(dim);

  if (type == kI2S) {
    // An old mainline type has the same id: 18 bytes for 32 elements in rows.
    const bool can_be_old = dims[0] % 32 == 0;
    const uint64_t old_bytes = elements / 32 * 18;
    const uint64_t bytes = elements / 4 + 32;
    if (can_be_old && Fills(old_bytes, extent, alignment) &&
        !Fills(bytes, extent, alignment)) {
      return absl::UnimplementedError(absl::StrCat(
          "type 36 has the size of IQ4_NL_4_4 (", old_bytes,
          " bytes), not of I2_S (", bytes,
          " bytes); convert the model to I2_S with a current converter"));
    }
    if (elements % 128 != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "type I2_S needs a multiple of 128 elements, it has ", elements));
    }
    return bytes;
  }
  if (type == kI8S) {
    return absl::UnimplementedError(
        "type 37 (I8_S, or the old IQ4_NL_4_8) does not belong in a file; "
        "convert the model again, to I2_S");
  }
  if (type == kTl1) return LookupTableTypeError("TL1 (or the old IQ4_NL_8_8)");

  const TypeTraits* traits = FindTraits(type);
  if (traits == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("type id ", type, " is not known"));
  }
  const uint64_t columns = static_cast<uint64_t>(dims[0]);
  const bool fits_blocks = columns % traits->block_elements == 0;
  // The product of elements is at most 2^48 and no type takes more than 8 bytes
  // an element (row prefixes included: their blocks have 64), so that nothing
  // here overflows.
  const uint64_t rows = elements / columns;
  const uint64_t bytes = rows * traits->row_bytes + elements /
                                                        traits->block_elements *
                                                        traits->block_bytes;
  if (type == kTl2OrMxfp4 &&
      !(fits_blocks && Fills(bytes, extent, alignment))) {
    return LookupTableTypeError("TL2");
  }
  if (!fits_blocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("type ", traits->name, " needs rows of a multiple of ",
                     traits->block_elements, " elements, they have ", columns));
  }
  return bytes;
}

}  // namespace tern
