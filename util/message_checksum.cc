#include "util/message_checksum.h"

#include <cstddef>
#include <vector>

#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "util/crc32c.h"

namespace tern {

uint32_t ChecksumOf(const google::protobuf::MessageLite& message) {
  // Kept for its memory: this is done for every step.
  thread_local std::vector<char> bytes;
  const size_t size = message.ByteSizeLong();
  if (bytes.size() < size) bytes.resize(size);
  google::protobuf::io::ArrayOutputStream array(bytes.data(),
                                                static_cast<int>(size));
  google::protobuf::io::CodedOutputStream out(&array);
  out.SetSerializationDeterministic(true);
  message.SerializeWithCachedSizes(&out);
  out.Trim();
  return Crc32c(bytes.data(), size);
}

}  // namespace tern
