#include "model/manifest.h"

#include <algorithm>
#include <set>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr char kFirstLine[] = "tern-manifest 1";
constexpr size_t kFilesMax = 2048;
constexpr size_t kNameBytesMax = 255;
constexpr int64_t kFileBytesMax = int64_t{1} << 46;

int64_t BlockCount(int64_t bytes) {
  return (bytes + kManifestBlockBytes - 1) / kManifestBlockBytes;
}

// A file's name in a folder that is ours: no path, nothing hidden.
bool IsFileName(absl::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_';
         });
}

absl::Status Bad(const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("the manifest of a model cannot be read: ", what));
}

// "keyword 12 34 rest": the numbers and the rest of a line.
bool ParseLine(absl::string_view line, absl::string_view keyword,
               std::vector<int64_t*> numbers, absl::string_view* rest) {
  if (!absl::ConsumePrefix(&line, keyword)) return false;
  for (int64_t* number : numbers) {
    if (!absl::ConsumePrefix(&line, " ")) return false;
    const size_t end = std::min(line.find(' '), line.size());
    if (!absl::SimpleAtoi(line.substr(0, end), number) || *number < 0 ||
        *number > kFileBytesMax) {
      return false;
    }
    line.remove_prefix(end);
  }
  if (!absl::ConsumePrefix(&line, " ")) return false;
  *rest = line;
  return true;
}

}  // namespace

std::vector<ManifestBlock> Manifest::Blocks() const {
  std::vector<ManifestBlock> blocks;
  for (size_t f = 0; f < files.size(); ++f) {
    for (size_t p = 0; p < files[f].parts.size(); ++p) {
      const ManifestPart& part = files[f].parts[p];
      for (size_t b = 0; b < part.blocks.size(); ++b) {
        const int64_t begin = static_cast<int64_t>(b) * kManifestBlockBytes;
        blocks.push_back({static_cast<int>(f), static_cast<int>(p),
                          part.offset + begin,
                          std::min(kManifestBlockBytes, part.bytes - begin),
                          part.blocks[b]});
      }
    }
  }
  return blocks;
}

int64_t Manifest::file_bytes() const {
  int64_t bytes = 0;
  for (const ManifestFile& file : files) bytes += file.bytes;
  return bytes;
}

int64_t Manifest::part_bytes() const {
  int64_t bytes = 0;
  for (const ManifestFile& file : files) {
    for (const ManifestPart& part : file.parts) bytes += part.bytes;
  }
  return bytes;
}

std::string SerializeManifest(const Manifest& manifest) {
  std::string text =
      absl::StrCat(kFirstLine, "\nblock_bytes ", kManifestBlockBytes, "\n");
  for (const ManifestFile& file : manifest.files) {
    absl::StrAppend(&text, "file ", file.bytes, " ", file.name, "\n");
    for (const ManifestPart& part : file.parts) {
      absl::StrAppend(&text, "part ", part.offset, " ", part.bytes, " ",
                      absl::CHexEscape(part.name), "\n");
      for (const Sha256Digest& hash : part.blocks) {
        absl::StrAppend(&text, Sha256Text(hash), "\n");
      }
    }
  }
  return text;
}

absl::StatusOr<Manifest> ParseManifest(absl::string_view text) {
  std::vector<absl::string_view> lines = absl::StrSplit(text, '\n');
  if (lines.size() < 3 || !lines.back().empty()) return Bad("it is cut off");
  lines.pop_back();
  if (lines[0] != kFirstLine) {
    return absl::UnimplementedError(
        absl::StrCat("the manifest of a model begins with \"",
                     absl::CHexEscape(lines[0].substr(0, 40)),
                     "\"; this release reads \"", kFirstLine, "\""));
  }
  Manifest manifest;
  std::set<std::string> names;
  size_t blocks_due = 0;
  for (size_t i = 2; i < lines.size(); ++i) {
    const std::string place = absl::StrCat("line ", i + 1, " is wrong");
    absl::string_view name;
    ManifestPart part;
    ManifestFile file;
    if (blocks_due > 0) {
      Sha256Digest hash;
      if (!ParseSha256(lines[i], &hash)) return Bad(place);
      manifest.files.back().parts.back().blocks.push_back(hash);
      --blocks_due;
    } else if (ParseLine(lines[i], "file", {&file.bytes}, &name)) {
      file.name = std::string(name);
      if (!IsFileName(name) || !names.insert(file.name).second ||
          manifest.files.size() == kFilesMax) {
        return Bad(place);
      }
      manifest.files.push_back(std::move(file));
    } else if (ParseLine(lines[i], "part", {&part.offset, &part.bytes},
                         &name)) {
      if (manifest.files.empty()) return Bad(place);
      ManifestFile& owner = manifest.files.back();
      const int64_t begin = owner.parts.empty() ? 0
                                                : owner.parts.back().offset +
                                                      owner.parts.back().bytes;
      if (part.bytes == 0 || part.offset < begin ||
          part.bytes > owner.bytes - part.offset ||
          !absl::CUnescape(name, &part.name) ||
          part.name.size() > kNameBytesMax) {
        return Bad(place);
      }
      blocks_due = BlockCount(part.bytes);
      // More lines than there are, and this is no place to take memory for.
      if (blocks_due > lines.size()) return Bad("it is cut off");
      owner.parts.push_back(std::move(part));
    } else {
      return Bad(place);
    }
  }
  if (blocks_due > 0 || manifest.files.empty()) return Bad("it is cut off");
  // One content has one text.
  if (SerializeManifest(manifest) != text) {
    return Bad("it is not written as this release writes it");
  }
  return manifest;
}

std::string ContentIdOf(absl::string_view manifest_text) {
  return Sha256Text(Sha256(manifest_text.data(), manifest_text.size()));
}

bool IsContentId(absl::string_view text) {
  Sha256Digest digest;
  return ParseSha256(text, &digest);
}

std::string PartText(const ManifestPart& part) {
  return part.name.empty() ? "the header" : absl::StrCat("tensor ", part.name);
}

}  // namespace tern
