#ifndef MODEL_TEXT_RANGE_H_
#define MODEL_TEXT_RANGE_H_

#include <cstddef>
#include <vector>

namespace tern {

// The bytes [begin, end) of a text.
struct TextRange {
  size_t begin;
  size_t end;
};

// Parts of one text: ascending, and none touches the next.
using TextRanges = std::vector<TextRange>;

}  // namespace tern

#endif  // MODEL_TEXT_RANGE_H_
