#include "model/json_place.h"

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tern {
namespace {

std::string ErrorOf(absl::string_view text) {
  const absl::Status status = ParseJson(text, "it").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
  return std::string(status.message());
}

TEST(ParseJson, RefusesWhatIsNoJson) {
  for (const char* text :
       {"", "{", "[1,]", "{\"a\"}", "nul", "1 2", "\"\\ud800\"", "\"\xff\"",
        "1e999", "[", "\"", "{\"a\":1,}"}) {
    EXPECT_EQ(ErrorOf(text).substr(0, 14), "it is not JSON") << text;
  }
}

TEST(ParseJson, RefusesKeysThatOccurTwice) {
  EXPECT_EQ(ErrorOf(R"({"a": 1, "b": {"c": 1, "a": 2, "c": 3}})"),
            "it has the key 'c' twice in one object");
  EXPECT_TRUE(ParseJson(R"({"a": {"a": [{"a": 1}, {"a": 1}]}})", "it").ok());
}

TEST(ParseJson, RefusesDeepNests) {
  const auto nest = [](int n) {
    return std::string(n, '[') + std::string(n, ']');
  };
  EXPECT_TRUE(ParseJson(nest(64), "it").ok());
  EXPECT_EQ(ErrorOf(nest(65)), "it is nested deeper than 64 levels");
  EXPECT_EQ(ErrorOf(std::string(10000000, '[')),
            "it is nested deeper than 64 levels");
}

TEST(JsonPlace, NamesTheWay) {
  const nlohmann::json document =
      *ParseJson(R"({"a": [{"b": "x", "n": null}, 7, -7, 1.5, true,
                  18446744073709551615]})",
                 "it");
  const JsonPlace root(&document, "it");
  const JsonPlace list = *root.Member("a");
  EXPECT_EQ(*list.ArraySize(), 6u);
  EXPECT_EQ(list.Element(0).Member("b")->name(), "it.a[0].b");
  EXPECT_EQ(*list.Element(0).Member("b")->String(), "x");
  EXPECT_TRUE(list.Element(0).Member("c")->is_null());
  EXPECT_TRUE(list.Element(0).Member("n")->Member("deeper")->is_null());
  EXPECT_EQ(*list.Element(0).StringOr("n", "y"), "y");
  EXPECT_EQ(*list.Element(1).Int(), 7);
  EXPECT_EQ(*list.Element(2).Int(), -7);
  EXPECT_TRUE(*list.Element(4).Bool());
  EXPECT_EQ(list.Element(3).Int().status().message(),
            "it.a[3] is not an integer of 64 bits");
  EXPECT_FALSE(list.Element(5).Int().ok());
  EXPECT_FALSE(list.Element(1).String().ok());
  EXPECT_FALSE(list.Element(1).Bool().ok());
  EXPECT_FALSE(list.Element(1).Member("x").ok());
  EXPECT_FALSE(root.ArraySize().ok());
  EXPECT_FALSE(list.Element(0).BoolOr("b", true).ok());
  EXPECT_FALSE(root.Type().ok());
}

}  // namespace
}  // namespace tern
