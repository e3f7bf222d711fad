#ifndef COORDINATOR_RECORD_FILE_H_
#define COORDINATOR_RECORD_FILE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tern {

// A file of records that is appended to until its writer dies.
//
//   file:   8 bytes "TERNREC1", then records
//   record: u32 length of the payload
//           u32 CRC-32C of the payload
//           u32 CRC-32C of the 8 bytes before
//           payload
//
// Little endian. The second checksum tells a length that was damaged from a
// record whose end was never written.

inline constexpr absl::string_view kRecordFileMagic = "TERNREC1";
inline constexpr size_t kMaxRecordBytes = 64 << 20;

// Appends a record to *out. REQUIRES: at most kMaxRecordBytes.
void AppendRecord(absl::string_view payload, std::string* out);

// Writes a file of one record, forces it to the disk, and puts it in the place
// of `folder`/`name`: who reads that finds the old one or the new one, whole.
// UNAVAILABLE when the system refuses.
absl::Status ReplaceRecordFile(const std::string& folder,
                               absl::string_view name,
                               absl::string_view payload);

// Calls `on_record` with the payload of one record after the other and returns
// the length of the file up to the last one that is whole.
//
// What comes after that is a torn tail: a record of which only the beginning
// was written, the last one with a wrong checksum, or zeros, which some file
// systems leave after a crash. Damage before the last record is DATA_LOSS and
// names file and offset, and so is a file that is something else. NOT_FOUND
// without the file. Errors of `on_record` end the reading and are returned with
// file and offset in front.
absl::StatusOr<int64_t> ReadRecords(
    const std::string& path,
    absl::FunctionRef<absl::Status(absl::string_view payload)> on_record);

}  // namespace tern

#endif  // COORDINATOR_RECORD_FILE_H_
