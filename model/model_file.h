#ifndef MODEL_MODEL_FILE_H_
#define MODEL_MODEL_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/mapped_file.h"

namespace tern {

// One of the files that a model consists of, as something to hash and to copy:
// what matters of it are its parts, which do not overlap; the bytes between
// them are padding that nobody reads.
struct ModelFile {
  struct Part {
    // Of a tensor, or of a whole file that only some need ("tokenizer.json");
    // empty for what everyone needs to open the model: a file's header, a
    // configuration.
    std::string name;
    int64_t offset = 0;
    int64_t bytes = 0;
  };

  // The same wherever the model lies: no path, and no name that its owner gave
  // to it.
  std::string name;
  std::shared_ptr<const MappedFile> file;
  std::vector<Part> parts;  // in the order of their offsets; none is empty
};

}  // namespace tern

#endif  // MODEL_MODEL_FILE_H_
