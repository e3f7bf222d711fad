#include "client/text_check.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "util/status_macros.h"
#include "util/utf8.h"

namespace tern {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

absl::Status CheckString(const std::string& name, const std::string& text) {
  const size_t place = FindInvalidUtf8(text);
  if (place == absl::string_view::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      name, " is not UTF-8: byte ", static_cast<unsigned char>(text[place]),
      " at offset ", place, "; convert the text to UTF-8"));
}

absl::Status CheckFields(const Message& message, const std::string& prefix) {
  const Reflection& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    const bool is_message =
        field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (!is_message && field->type() != FieldDescriptor::TYPE_STRING) continue;
    const bool is_repeated = field->is_repeated();
    const int n = is_repeated ? reflection.FieldSize(message, field) : 1;
    for (int i = 0; i < n; ++i) {
      std::string name = absl::StrCat(prefix, field->name());
      if (is_repeated) absl::StrAppend(&name, "[", i, "]");
      if (is_message) {
        RETURN_IF_ERROR(CheckFields(
            is_repeated ? reflection.GetRepeatedMessage(message, field, i)
                        : reflection.GetMessage(message, field),
            name + "."));
      } else {
        RETURN_IF_ERROR(CheckString(
            name, is_repeated ? reflection.GetRepeatedString(message, field, i)
                              : reflection.GetString(message, field)));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckText(const Message& message) {
  return CheckFields(message, "");
}

}  // namespace tern
