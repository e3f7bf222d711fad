#ifndef MODEL_MANIFEST_H_
#define MODEL_MANIFEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "util/sha256.h"

namespace tern {

// Parts are hashed in blocks of so many bytes, the last of a part shorter, so
// that one large tensor is hashed by several threads, fetched over several
// streams, and fetched again from where it was interrupted.
inline constexpr int64_t kManifestBlockBytes = 4 << 20;

struct ManifestPart {
  std::string name;  // see ModelFile::Part
  int64_t offset = 0;
  int64_t bytes = 0;
  std::vector<Sha256Digest> blocks;  // one for each block, in order
};

struct ManifestFile {
  std::string name;  // of no folder; see ModelFile
  int64_t bytes = 0;
  std::vector<ManifestPart> parts;  // in the order of their offsets
};

// A block: [offset, offset + bytes) of a file.
struct ManifestBlock {
  int file;
  int part;  // of the file
  int64_t offset;
  int64_t bytes;
  Sha256Digest hash;
};

// What a model consists of, by content: every file, every tensor in it and the
// hashes of the tensor's blocks. Two models with the same manifest compute the
// same.
struct Manifest {
  std::vector<ManifestFile> files;

  // All blocks, in the order of files and offsets; the index of a block in this
  // list is its number everywhere else.
  std::vector<ManifestBlock> Blocks() const;

  // Of all files, and of all parts (what can be fetched).
  int64_t file_bytes() const;
  int64_t part_bytes() const;
};

// The manifest as text: the one form in which it is kept, sent and hashed.
// docs/wire_protocol.md shows it.
std::string SerializeManifest(const Manifest& manifest);

// The way back, for text from anyone. INVALID_ARGUMENT for what
// SerializeManifest() would not have written (every name is one of a file in a
// folder and no path; parts lie in their files in order), UNIMPLEMENTED for a
// later version's.
absl::StatusOr<Manifest> ParseManifest(absl::string_view text);

// Names the content: the SHA-256 of the text, as 64 hexadecimal digits.
std::string ContentIdOf(absl::string_view manifest_text);

// Whether `text` has the form of a content id. Such a text is safe as the name
// of a folder.
bool IsContentId(absl::string_view text);

// A part's name for people.
std::string PartText(const ManifestPart& part);

}  // namespace tern

#endif  // MODEL_MANIFEST_H_
