// Templates that mean harm end in a status, soon.

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/jinja.h"
#include "model/jinja_text.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {
namespace {

std::string Repeated(absl::string_view text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out.append(text.data(), text.size());
  return out;
}

std::string Outcome(absl::string_view source) {
  absl::StatusOr<Template> parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status().ToString();
  absl::StatusOr<Text> text = parsed->Render(
      {{"t", Value::String(Text(Repeated("ab ", 1 << 18), Origin::kUser))}});
  return text.ok() ? "OK" : text.status().ToString();
}

void ExpectRefused(absl::string_view source, absl::string_view why) {
  const std::string outcome = Outcome(source);
  EXPECT_TRUE(absl::StartsWith(outcome, "INVALID_ARGUMENT: ") &&
              absl::StrContains(outcome, why))
      << source.substr(0, 100) << "\n"
      << outcome.substr(0, 300);
}

TEST(JinjaLimits, Steps) {
  const char kSteps[] = "takes more than 1000000 steps";
  ExpectRefused(
      "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
      "{% endfor %}",
      kSteps);
  // Text made.
  ExpectRefused("{% for a in range(99999) %}{% set x = t + t %}{% endfor %}",
                kSteps);
  // Text looked through.
  ExpectRefused(
      "{% for a in range(99999) %}{% set x = 'abb' in t %}"
      "{% endfor %}",
      kSteps);
  ExpectRefused("{% for a in range(99999) %}{% set x = t|length %}{% endfor %}",
                kSteps);
  ExpectRefused("{% for a in range(99999) %}{% set x = t[-1] %}{% endfor %}",
                kSteps);
  ExpectRefused(
      "{% for a in range(99999) %}{% set x = t == t ~ '' %}"
      "{% endfor %}",
      kSteps);
  // Items compared.
  ExpectRefused(
      "{% set l = range(99999)|list %}"
      "{% for a in l %}{% if -1 in l %}{% endif %}{% endfor %}",
      kSteps);
  // 2^60 items by 60 lists.
  ExpectRefused(
      "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}"
      "{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
      "{{ ns.x == ns.x }}",
      kSteps);
  ExpectRefused(
      "{% set ns = namespace(x=[]) %}{% for i in range(60) %}"
      "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}",
      kSteps);
  ExpectRefused(
      "{% for i in range(99999) %}{{ t[:99999]|list|length }}"
      "{% endfor %}",
      kSteps);
  ExpectRefused(
      "{% macro m(i) %}{% if i %}{{ m(i - 1) }}{{ m(i - 1) }}"
      "{% endif %}{% endmacro %}{{ m(40) }}",
      kSteps);
}

TEST(JinjaLimits, Variables) {
  std::string many;
  for (int i = 0; i < 4000; ++i) absl::StrAppend(&many, "{% set a", i, "=1 %}");
  ExpectRefused(absl::StrCat(many,
                             "{% for i in range(99999) %}{{ a3999 }}"
                             "{% endfor %}"),
                "steps");
  std::string keys = "{{ {";
  for (int i = 0; i < 300; ++i) absl::StrAppend(&keys, i, ":1,");
  ExpectRefused(keys + "} }}", "a dict has more than 256 items");
  std::string attributes = "{% set ns = namespace() %}";
  for (int i = 0; i < 300; ++i) {
    absl::StrAppend(&attributes, "{% set ns.a", i, "=1 %}");
  }
  ExpectRefused(attributes, "a namespace has more than 256 attributes");
}

TEST(JinjaLimits, Sizes) {
  ExpectRefused(std::string((128 << 10) + 1, 'x'), "at most 131072 are");
  ExpectRefused("{{ 'x' * 9999999 }}", "at most 4194304 are");
  ExpectRefused("{{ t ~ t ~ t ~ t ~ t ~ t ~ t }}", "at most 4194304 are");
  ExpectRefused("{% for i in range(9) %}{{ t }}{% endfor %}",
                "at most 4194304 are");
  ExpectRefused("{{ t|replace('a', t) }}", "at most 4194304 are");
  ExpectRefused("{{ range(100001) }}", "at most 100000 are");
  ExpectRefused("{{ range(-9223372036854775807, 9223372036854775807) }}",
                "at most 100000 are");
  ExpectRefused("{{ [1] * 9999999 }}", "at most 100000 are");
  ExpectRefused("{{ 9223372036854775807 + 1 }}", "64 bits");
  ExpectRefused("{{ -9223372036854775807 * 2 }}", "64 bits");
  ExpectRefused("{{ (-9223372036854775807 - 1) // -1 }}", "64 bits");
  ExpectRefused("{{ 99999999999999999999 }}", "is too large");
  ExpectRefused("{{ 1e308 * 10 }}", "beyond what can be counted");
  ExpectRefused("{{ [] | tojson(indent=999) }}", "indent must be");
  ExpectRefused("{{ t|list }}", "at most 100000 are");
  ExpectRefused("{{ t.strip(t) }}", "at most 64 are allowed");
}

TEST(JinjaLimits, Depth) {
  for (const auto& [open, close] :
       std::vector<std::pair<const char*, const char*>>{{"(", ")"},
                                                        {"[", "]"},
                                                        {"{1:", "}"},
                                                        {"not ", ""},
                                                        {"- ", ""},
                                                        {"a[", "]"},
                                                        {"f(", ")"},
                                                        {"x|default(", ")"},
                                                        {"x is eq(", ")"},
                                                        {"1 if 1 else ", ""}}) {
    ExpectRefused(absl::StrCat("{{ ", Repeated(open, 9000), "1",
                               Repeated(close, 9000), " }}"),
                  "deeper than");
  }
  for (const char* chain : {"+1", "~1", "*1", " and 1", " or 1", ".a", "[0]",
                            "()", "|abs", " if 1"}) {
    ExpectRefused(absl::StrCat("{{ a", Repeated(chain, 9000), " }}"),
                  "deeper than");
  }
  for (const auto& [open, close] :
       std::vector<std::pair<const char*, const char*>>{
           {"{% if 1 %}", "{% endif %}"},
           {"{% for i in x %}", "{% endfor %}"},
           {"{% set x %}", "{% endset %}"},
           {"{% filter trim %}", "{% endfilter %}"}}) {
    ExpectRefused(Repeated(open, 2500) + Repeated(close, 2500), "deeper than");
  }
  ExpectRefused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
                "nested too deep");
  ExpectRefused(
      "{% set ns = namespace(x=[]) %}{% for i in range(999) %}"
      "{% set ns.x = [ns.x] %}{% endfor %}",
      "nested deeper than 64");
  ExpectRefused(
      "{% set ns = namespace(x={}) %}{% for i in range(999) %}"
      "{% set ns.x = {1: ns.x} %}{% endfor %}",
      "nested deeper than 64");
}

// As deep as may be: the stack must hold it.
TEST(JinjaLimits, TheDeepestThatIsAllowedRuns) {
  EXPECT_EQ(Outcome(absl::StrCat("{{ 1", Repeated(" + 1", 125), " }}")), "OK");
  EXPECT_EQ(Outcome(absl::StrCat("{{ ", Repeated("(", 30), "1",
                                 Repeated(")", 30), " }}")),
            "OK");
  EXPECT_EQ(Outcome(Repeated("{% if 1 %}", 60) + Repeated("{% endif %}", 60)),
            "OK");
}

// What holds itself would never be freed.
TEST(JinjaLimits, NothingHoldsItself) {
  ExpectRefused("{% set ns = namespace() %}{% set ns.x = ns %}",
                "a namespace cannot be put into a namespace");
  ExpectRefused("{% set ns = namespace() %}{% set ns.x = [ns] %}",
                "a namespace cannot be put into a list");
  ExpectRefused("{% set ns = namespace() %}{{ {1: ns} }}",
                "a namespace cannot be put into a dict");
  ExpectRefused("{% set ns = namespace() %}{{ namespace(x=ns) }}",
                "a namespace cannot be put into a namespace");
  ExpectRefused("{% for i in [1] %}{{ [loop] }}{% endfor %}",
                "a loop cannot be put into a list");
}

TEST(JinjaLimits, LongWhiteSpaceAndManyTagsAreNoTrouble) {
  const std::string spaces(60000, ' ');
  EXPECT_EQ(
      Outcome(absl::StrCat("{%", spaces, "if 1", spaces, "%}{% endif %}")),
      "OK");
  EXPECT_EQ(Outcome(Repeated("{%raw%}{%endraw%}", 7000)), "OK");
  ExpectRefused(Repeated("{", 131071), "has no end");
}

}  // namespace
}  // namespace jinja
}  // namespace tern
