#include "model/jinja_json.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "model/jinja_error.h"
#include "util/status_macros.h"

namespace tern {
namespace jinja {
namespace {

using Kind = Value::Kind;

class JsonWriter {
 public:
  JsonWriter(int indent, Budget* budget) : indent_(indent), budget_(budget) {}

  absl::Status Write(const Value& value, int depth);
  Text Take() { return std::move(out_); }

 private:
  absl::Status WriteString(const Text& text);
  absl::Status NewLine(int depth);
  absl::Status Put(absl::string_view bytes) {
    return AppendText(Text(bytes), &out_, budget_);
  }

  const int indent_;
  Budget* const budget_;
  Text out_;
};

absl::Status JsonWriter::NewLine(int depth) {
  if (indent_ < 0) return absl::OkStatus();
  return Put(absl::StrCat("\n", std::string(depth * indent_, ' ')));
}

absl::Status JsonWriter::WriteString(const Text& text) {
  RETURN_IF_ERROR(Put("\""));
  RETURN_IF_ERROR(budget_->SpendBytes(text.size()));
  // What needs no escape is copied in one piece, with its marks.
  const absl::string_view bytes = text.bytes();
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size(); ++at) {
    const uint8_t c = bytes[at];
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    RETURN_IF_ERROR(AppendText(text.Substr(begin, at), &out_, budget_));
    begin = at + 1;
    std::string escape;
    switch (c) {
      case '"':
        escape = "\\\"";
        break;
      case '\\':
        escape = "\\\\";
        break;
      case '\n':
        escape = "\\n";
        break;
      case '\r':
        escape = "\\r";
        break;
      case '\t':
        escape = "\\t";
        break;
      case '\b':
        escape = "\\b";
        break;
      case '\f':
        escape = "\\f";
        break;
      default:
        escape = absl::StrCat("\\u", absl::Hex(c, absl::kZeroPad4));
    }
    RETURN_IF_ERROR(
        AppendText(Text(escape, text.OriginAt(at)), &out_, budget_));
  }
  RETURN_IF_ERROR(AppendText(text.Substr(begin, text.size()), &out_, budget_));
  return Put("\"");
}

absl::Status JsonWriter::Write(const Value& value, int depth) {
  RETURN_IF_ERROR(budget_->Spend(1));
  const absl::string_view comma = indent_ < 0 ? ", " : ",";
  switch (value.kind()) {
    case Kind::kNone:
      return Put("null");
    case Kind::kBool:
      return Put(value.bool_value() ? "true" : "false");
    case Kind::kInt:
    case Kind::kFloat: {
      ASSIGN_OR_RETURN(const Text text, ToText(value));
      return AppendText(text, &out_, budget_);
    }
    case Kind::kString:
      return WriteString(value.text());
    case Kind::kList: {
      if (value.list().empty()) return Put("[]");
      RETURN_IF_ERROR(Put("["));
      bool is_first = true;
      for (const Value& item : value.list()) {
        if (!is_first) RETURN_IF_ERROR(Put(comma));
        is_first = false;
        RETURN_IF_ERROR(NewLine(depth + 1));
        RETURN_IF_ERROR(Write(item, depth + 1));
      }
      RETURN_IF_ERROR(NewLine(depth));
      return Put("]");
    }
    case Kind::kDict: {
      if (value.dict().empty()) return Put("{}");
      RETURN_IF_ERROR(Put("{"));
      bool is_first = true;
      for (const DictItem& item : value.dict()) {
        if (!is_first) RETURN_IF_ERROR(Put(comma));
        is_first = false;
        RETURN_IF_ERROR(NewLine(depth + 1));
        if (!item.key.Is(Kind::kString)) {
          return Error("tojson needs strings as keys of a dict");
        }
        RETURN_IF_ERROR(WriteString(item.key.text()));
        RETURN_IF_ERROR(Put(": "));
        RETURN_IF_ERROR(Write(item.value, depth + 1));
      }
      RETURN_IF_ERROR(NewLine(depth));
      return Put("}");
    }
    default:
      return Error(absl::StrCat("tojson cannot write ", value.KindName()));
  }
}

}  // namespace

absl::StatusOr<Text> ToJson(const Value& value, int indent, Budget* budget) {
  JsonWriter writer(indent, budget);
  RETURN_IF_ERROR(writer.Write(value, 0));
  return writer.Take();
}

}  // namespace jinja
}  // namespace tern
