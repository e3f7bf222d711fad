#include "model/model_source.h"

#include <sys/stat.h>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "model/gguf_reader.h"
#include "model/gguf_source.h"
#include "model/safetensors_reader.h"
#include "model/safetensors_source.h"
#include "util/status_macros.h"

namespace tern {

absl::StatusOr<std::unique_ptr<ModelSource>> ModelSource::Open(
    const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
    return OpenSafetensorsSource(path);
  }
  ASSIGN_OR_RETURN(std::unique_ptr<GgufReader> file, GgufReader::Open(path));
  return MakeGgufSource(std::move(file));
}

absl::StatusOr<std::unique_ptr<ModelSource>> ModelSource::FromGguf(
    absl::Span<const uint8_t> bytes) {
  ASSIGN_OR_RETURN(std::unique_ptr<GgufReader> file,
                   GgufReader::FromBytes(bytes));
  return MakeGgufSource(std::move(file));
}

absl::StatusOr<std::unique_ptr<ModelSource>> ModelSource::FromSafetensors(
    absl::string_view config_json, absl::Span<const uint8_t> bytes) {
  std::vector<std::unique_ptr<SafetensorsReader>> files(1);
  ASSIGN_OR_RETURN(files[0], SafetensorsReader::FromBytes(bytes));
  return MakeSafetensorsSource(config_json, std::move(files), {""}, "");
}

std::string ModelNameOf(absl::string_view path) {
  while (path.size() > 1 && absl::EndsWith(path, "/")) path.remove_suffix(1);
  path.remove_prefix(path.rfind('/') + 1);  // npos + 1 is 0
  if (!absl::ConsumeSuffix(&path, ".gguf")) return std::string(path);
  // "-00001-of-00003"
  constexpr size_t kPartBytes = 15;
  if (path.size() > kPartBytes &&
      absl::StartsWith(path.substr(path.size() - kPartBytes), "-00001-of-")) {
    path.remove_suffix(kPartBytes);
  }
  return std::string(path);
}

}  // namespace tern
