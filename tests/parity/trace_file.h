#ifndef TESTS_PARITY_TRACE_FILE_H_
#define TESTS_PARITY_TRACE_FILE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tern {

// Arrays that an independent numpy implementation of the model wrote down while
// it ran (tests/parity/README.md), by name.
//
// File: u32 count, then per array u32 name length, name, type character
// ('f' float32, 'h' float16, 'b' int8, 'i' int32), u32 dimension count,
// u32 dimensions, elements. All little-endian.
class TraceFile {
 public:
  static absl::StatusOr<TraceFile> Read(const std::string& path);

  // The array's elements as T; ends the test program when there is no such
  // array or its type is another one.
  template <typename T>
  std::vector<T> Get(const std::string& name) const;

  // Its dimensions.
  const std::vector<int>& Shape(const std::string& name) const;

 private:
  struct Array {
    char type;
    std::vector<int> shape;
    std::string bytes;
  };
  const Array& Find(const std::string& name) const;

  std::map<std::string, Array> arrays_;
};

}  // namespace tern

#endif  // TESTS_PARITY_TRACE_FILE_H_
