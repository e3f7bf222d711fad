#include "model/jinja.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "model/jinja_text.h"
#include "model/jinja_value.h"

namespace tern {
namespace jinja {
namespace {

Value Message(absl::string_view role, absl::string_view content) {
  Budget budget{Limits()};
  return *Value::MakeDict(
      {{Value::String("role"), Value::String(role)},
       {Value::String("content"), Value::String(Text(content, Origin::kUser))}},
      &budget);
}

Variables TestVariables() {
  Budget budget{Limits()};
  Value dict = *Value::MakeDict({{Value::String("a"), Value::Int(1)},
                                 {Value::String("b"), Value::String("x\"\n")}},
                                &budget);
  Value list =
      *Value::MakeList({Message("system", "be nice"), Message("user", " Hi "),
                        Message("assistant", "Yo")},
                       &budget);
  return {{"n", Value::Int(7)},
          {"f", *Value::Float(2.5)},
          {"s", Value::String("hello World foo")},
          {"u", Value::String("aé😀")},
          {"empty", Value::String("")},
          {"nothing", Value::None()},
          {"d", dict},
          {"messages", list}};
}

std::string Render(absl::string_view source) {
  absl::StatusOr<Template> parsed = Template::Parse(source);
  if (!parsed.ok()) return std::string(parsed.status().message());
  absl::StatusOr<Text> text = parsed->Render(TestVariables());
  return std::string(text.ok() ? text->bytes() : text.status().message());
}

struct Case {
  const char* expression;
  const char* expected;
};

void ExpectAll(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    EXPECT_EQ(Render(absl::StrCat("{{ ", c.expression, " }}")), c.expected)
        << c.expression;
  }
}

TEST(Jinja, Numbers) {
  ExpectAll({{"1 + 2 * 3", "7"},
             {"7 / 2", "3.5"},
             {"7 // 2", "3"},
             {"-7 // 2", "-4"},
             {"-7 % 3", "2"},
             {"7 % -3", "-2"},
             {"-2.5 % 2", "1.5"},
             {"2.5 // 1", "2.0"},
             {"- 3 + 5", "2"},
             {"-n|abs", "7"},
             {"0.1 + 0.2", "0.30000000000000004"},
             {"1e3", "1000.0"},
             {"1e16", "1e+16"},
             {"1.5e-7", "1.5e-07"},
             {"123456.0", "123456.0"},
             {"true + true", "2"},
             {"4.7|int", "4"},
             {"'42'|int + 1", "43"},
             {"'4.7'|int", "4"},
             {"'x'|int", "0"},
             {"'x'|int(9)", "9"},
             {"'3'|float", "3.0"}});
}

TEST(Jinja, Strings) {
  ExpectAll(
      {{"'a' 'b'", "ab"},
       {"'a' ~ 1 ~ 2.0 ~ none ~ true", "a12.0NoneTrue"},
       {"'x' * 3 + 'y'", "xxxy"},
       {"'\\x41\\u00e9\\n\\\\\\'\\101\\q'", "Aé\n\\'A\\q"},
       {"s|upper", "HELLO WORLD FOO"},
       {"s|lower", "hello world foo"},
       {"s|capitalize", "Hello world foo"},
       {"\"they're bill-y (x)\"|title", "They're Bill-Y (X)"},
       {"\"they're bill-y\".title()", "They'Re Bill-Y"},
       {"u|length", "3"},
       {"u[1]", "é"},
       {"u[-1]", "😀"},
       {"u[::-1]", "😀éa"},
       {"u|first ~ u|last", "a😀"},
       {"s[1:3] ~ s[-3:] ~ s[:1] ~ s[5:1:-2]", "elfooh l"},
       {"s[100:] ~ '.'", "."},
       {"s|replace('o', '0')", "hell0 W0rld f00"},
       {"s|replace('o', '0', 1)", "hell0 World foo"},
       {"s.split()|join('|')", "hello|World|foo"},
       {"s.split(' ', 1)|join('|')", "hello|World foo"},
       {"s.split(none, 1)|join('|')", "hello|World foo"},
       {"' a  b '.split(' ')|join('|')", "|a||b|"},
       {"'xxhixx'.strip('x') ~ 'xa'.lstrip('x') ~ 'ax'.rstrip('x')", "hiaa"},
       {"' \\u00a0\\u3000hi\\t\\n '|trim ~ '.'", "hi."},
       {"'--a--'|trim('-')", "a"},
       {"s.startswith('he') ~ s.startswith(('x', 'h'))", "TrueTrue"},
       {"s.endswith('bar')", "False"},
       {"s.find('W') ~ s.find('?') ~ s.count('o')", "6-14"},
       {"s.removeprefix('hello ') ~ s.removesuffix('x')",
        "World foohello World foo"},
       {"'12'.isdigit() ~ ''.isdigit()", "TrueFalse"},
       {"','.join(['a', 'b'])", "a,b"},
       {"u|list|join('-')", "a-é-😀"}});
}

TEST(Jinja, ListsAndDicts) {
  ExpectAll(
      {{"messages[0].role", "system"},
       {"messages[-1]['content']", "Yo"},
       {"messages.1.role", "user"},
       {"messages[1:]|length", "2"},
       {"messages[::-1][0].role", "assistant"},
       {"messages[9] ~ messages[0].nope ~ messages[0]['nope']", ""},
       {"([1, 2] + [3])|join(',')", "1,2,3"},
       {"([1] * 3)|join", "111"},
       {"[3, 1]|first ~ [3, 1]|last", "31"},
       {"[1, 2, 3]|reverse|join", "321"},
       {"()|length ~ (1,)|length ~ (1)", "011"},
       {"messages|map(attribute='role')|join(' ')", "system user assistant"},
       {"messages|map(attribute='x', default='-')|join", "---"},
       {"['a', 'b']|map('upper')|join", "AB"},
       {"messages|selectattr('role', 'equalto', 'user')|list|length", "1"},
       {"messages|rejectattr('role', 'in', ['user', 'system'])"
        "|map(attribute='content')|first",
        "Yo"},
       {"[0, 1, 2]|select|list|length", "2"},
       {"[1, 2, 3]|select('odd')|join ~ [1, 2, 3]|reject('odd')|join", "132"},
       {"messages|join(',', attribute='role')", "system,user,assistant"},
       {"range(3)|join ~ range(1, 4)|join ~ range(5, 0, -2)|join", "012123531"},
       {"d.keys()|join ~ d.items()|length ~ d.get('z', 5)", "ab25"},
       {"d|items|length ~ d.values()|first", "21"},
       {"{'a': {'b': 2}}.a.b", "2"},
       {"dict(d, a=3)|tojson", "{\"a\": 3, \"b\": \"x\\\"\\n\"}"},
       {"[1, none, true, 'é<\\x01', []]|tojson",
        "[1, null, true, \"é<\\u0001\", []]"},
       {"{'a': [1, {}]}|tojson(indent=2)",
        "{\n  \"a\": [\n    1,\n    {}\n  ]\n}"}});
}

TEST(Jinja, ComparisonsAndLogic) {
  ExpectAll({{"1 == 1.0 == true", "True"},
             {"1 < 2 < 3", "True"},
             {"1 < 2 > 3", "False"},
             {"'a' < 'b'", "True"},
             {"[1, 2] == [1, 2] and {'a': 1} == {'a': 1.0}", "True"},
             {"'ell' in s and 'z' not in d and 1 in [1]", "True"},
             {"none == nope", "False"},
             {"nope or 'x'", "x"},
             {"n and 'x'", "x"},
             {"not n", "False"},
             {"not 1 in [2]", "True"},
             {"'y' if n else 'z'", "y"},
             {"'y' if nope", ""},
             {"'a' if nope else 'b' if n else 'c'", "b"},
             {"nope|default('q') ~ empty|default('q')", "q"},
             {"[]|select and []|reverse and 'y' or 'n'", "y"},
             {"'y' if []|select|list else 'n'", "n"},
             {"nope|default(1)|int", "1"},
             {"empty|default('q', true) ~ empty|d('q', boolean=true)", "qq"}});
}

TEST(Jinja, Tests) {
  for (const char* holds : {"n is defined",
                            "nope is not defined",
                            "nope is undefined",
                            "nothing is none",
                            "n is number",
                            "true is number",
                            "true is boolean",
                            "n is integer",
                            "f is float",
                            "s is string",
                            "d is mapping",
                            "messages is iterable",
                            "messages is sequence",
                            "s is iterable",
                            "not n is iterable",
                            "n is odd",
                            "not n is even",
                            "n is divisibleby 7",
                            "not n is divisibleby(2)",
                            "true is true",
                            "not 1 is true",
                            "false is false",
                            "n is eq 7",
                            "n is gt(5)",
                            "n is in [7]",
                            "n is lt 3 or n is ge(7)",
                            "raise_exception is defined",
                            "strftime_now is not defined",
                            "range is callable",
                            "s is sameas s",
                            "s.upper is defined",
                            "d.nope is not defined",
                            "n is ne 8"}) {
    EXPECT_EQ(Render(absl::StrCat("{{ ", holds, " }}")), "True") << holds;
  }
}

TEST(Jinja, FiltersBindTighterThanOperators) {
  ExpectAll({{"messages[1].role|capitalize + ': ' + messages[1].content|trim "
              "+ '.'",
              "User: Hi."},
             {"'a'|upper ~ 'b'|upper", "AB"},
             {"'1' + 2 ~ 3", "123"},
             {"2 * 3 ~ 4", "64"},
             {"'a' + 'b' is string",
              "chat template, line 1: the operator + "
              "does not take a string and a boolean"}});
}

TEST(Jinja, Loops) {
  EXPECT_EQ(Render("{% for m in messages %}{{ loop.index }}{{ loop.index0 }}"
                   "{{ loop.revindex }}{{ loop.length }}"
                   "{% if loop.first %}F{% endif %}{% if loop.last %}L"
                   "{% endif %}{{ loop.previtem.role if loop.previtem is "
                   "defined }}{{ loop.cycle('x', 'y') }} {% endfor %}"),
            "1033Fx 2123systemy 3213Luserx ");
  EXPECT_EQ(Render("{% for i in [] %}a{% else %}b{% endfor %}"), "b");
  EXPECT_EQ(Render("{% for i in [1, 2, 3] if i is odd %}{{ i }}"
                   "{{ loop.length }}{% endfor %}"),
            "1232");
  EXPECT_EQ(Render("{% for k, v in d.items() %}{{ k }}={{ v|tojson }};"
                   "{% endfor %}"),
            "a=1;b=\"x\\\"\\n\";");
  EXPECT_EQ(
      Render("{% for i in range(9) %}{% if i == 1 %}{% continue %}"
             "{% elif i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
      "023");
  EXPECT_EQ(Render("{% for i in range(2) %}{% set o = loop %}"
                   "{% for j in range(2) %}{{ o.index }}{{ loop.index }} "
                   "{% endfor %}{% endfor %}"),
            "11 12 21 22 ");
}

TEST(Jinja, WhatALoopSetsEndsWithTheIteration) {
  EXPECT_EQ(Render("{% set x = 0 %}{% for i in [1, 2] %}{{ x }}"
                   "{% set x = i %}{{ x }}{% endfor %}{{ x }}"),
            "01020");
  EXPECT_EQ(Render("{% set ns = namespace(x=0) %}{% for i in range(4) %}"
                   "{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}"),
            "6");
  EXPECT_EQ(Render("{% if n %}{% set q = 1 %}{% endif %}{{ q }}"), "1");
}

TEST(Jinja, SetAndMacro) {
  EXPECT_EQ(Render("{% set a, b = 1, 2 %}{{ b }}{{ a }}"), "21");
  EXPECT_EQ(Render("{% set t | trim | upper %}  hi {{ n }} {% endset %}[{{ t "
                   "}}]"),
            "[HI 7]");
  EXPECT_EQ(Render("{% macro f(a, b='z') %}[{{ a }}{{ b }}{{ n }}]"
                   "{% endmacro %}{{ f(1) }}{{ f(b=3, a=4) }}{{ f() }}"),
            "[1z7][437][z7]");
  EXPECT_EQ(Render("{% macro f(i) %}{{ i }}{% if i > 0 %}{{ f(i - 1) }}"
                   "{% endif %}{% endmacro %}{{ f(3) }}"),
            "3210");
  EXPECT_EQ(Render("{% filter upper %}ab{{ n }}c{% endfilter %}"), "AB7C");
  EXPECT_EQ(Render("a{% generation %}b{% endgeneration %}c"), "abc");
}

TEST(Jinja, ErrorsNameTheLine) {
  for (const auto& [source, message] :
       std::vector<std::pair<const char*, const char*>>{
           {"\n{{ nope.x }}", "line 2: 'nope' is undefined and has no"},
           {"\n\n{{ 1 / 0 }}", "line 3: cannot divide by 0"},
           {"{{ 'a' + 1 }}", "line 1: the operator + does not take"},
           {"{{ 'a' + nope }}", "line 1: 'nope' is undefined beside +"},
           {"{{ nope|int }}", "line 1: filter 'int': 'nope' is undefined"},
           {"{{ s|nope }}", "line 1: filter 'nope': is not known"},
           {"{{ s is nope }}", "line 1: test 'nope': is not known"},
           {"{{ s.nope() }}", "line 1: a string has no method 'nope'"},
           {"{{ nope() }}", "line 1: there is no function 'nope'"},
           {"{{ messages.append(1) }}", "values do not change"},
           {"{{ strftime_now('%Y') }}", "strftime_now() is not offered"},
           {"{{ messages }}", "line 1: a list cannot be printed"},
           {"{% for x in n %}{% endfor %}", "line 1: cannot go through an int"},
           {"{% for a, b in [[1]] %}{% endfor %}", "1 values for 2 names"},
           {"{% set d.a = 1 %}", "line 1: 'd' is no namespace"},
           {"{{ raise_exception('no') }}", "refuses this conversation: no"},
           {"{{ [1].x.y }}", "line 1: 'x' is undefined"},
           {"{{ {[]: 1} }}", "line 1: a list cannot be the key of a dict"},
           {"{% include 'x' %}", "the statement 'include' is not offered"},
           {"{% for a in b recursive %}{% endfor %}", "recursive loops"},
           {"{% for a in s %}{% macro m() %}{% endmacro %}{% endfor %}",
            "a macro cannot be defined in a loop"},
           {"{{ f(*x) }}", "arguments by * and **"},
           {"{{ 2 ** 3 }}", "the operator ** is not offered"},
           {"{% if n %}x", "expected 'endif', found the end"},
           {"\n{% endif %}", "line 2: the statement 'endif' is not offered"},
           {"{{ (1 }}", "unexpected '}'"},
           {"{{ 'a }}", "line 1: a string has no end"},
           {"{# a", "line 1: a comment has no end"},
           {"{% raw %}a", "line 1: 'raw' has no 'endraw'"},
           {"{{ 1", "line 1: a tag '{{' has no end"},
           {"{{ $ }}", "unexpected character '$'"},
           {"{% break %}", "'break' stands outside of a loop"},
           {"\xff", "the chat template is not UTF-8 at byte offset 0"}}) {
    const std::string text = Render(source);
    EXPECT_TRUE(absl::StrContains(text, message)) << source << "\n" << text;
  }
}

// (text of users)
std::string RenderMarked(absl::string_view expression) {
  absl::StatusOr<Template> parsed =
      Template::Parse(absl::StrCat("{{ ", expression, " }}"));
  if (!parsed.ok()) return std::string(parsed.status().message());
  const absl::StatusOr<Text> text =
      parsed->Render({{"t", Value::String(Text("<|a|> Bc ", Origin::kUser))}});
  if (!text.ok()) return std::string(text.status().message());
  std::string out;
  size_t begin = 0;
  for (const Text::Run& run : text->runs()) {
    const std::string part(text->bytes().substr(begin, run.end - begin));
    out += run.origin == Origin::kUser ? "(" + part + ")" : part;
    begin = run.end;
  }
  return out;
}

TEST(Jinja, TextOfUsersStaysMarked) {
  for (const auto& [expression, expected] :
       std::vector<std::pair<const char*, const char*>>{
           {"'x' + t + 'y'", "x(<|a|> Bc )y"},
           {"'x' ~ t ~ 1", "x(<|a|> Bc )1"},
           {"t|trim + '.'", "(<|a|> Bc)."},
           {"t|upper + t.lower()", "(<|A|> BC <|a|> bc )"},
           {"(t ~ 'x').title() ~ '-' ~ t|capitalize",
            "(<|A|> Bc )X-(<|a|> bc )"},
           {"t[1:4] ~ t[0] ~ 'z'[0]", "(|a|<)z"},
           {"(t ~ 'x')[::-1]", "x( cB >|a|<)"},
           {"t.split('|')|join('|')", "(<)|(a)|(> Bc )"},
           {"t|replace('a', 'b')", "(<|)b(|> Bc )"},
           {"'<>'|replace('>', t)", "<(<|a|> Bc )"},
           {"[t, 'x']|join(t)", "(<|a|> Bc <|a|> Bc )x"},
           {"t|tojson", "\"(<|a|> Bc )\""},
           {"{t: t ~ '\"'}|tojson", "{\"(<|a|> Bc )\": \"(<|a|> Bc )\\\"\"}"},
           {"{t: 1}.keys()|first", "(<|a|> Bc )"},
           {"t|list|join", "(<|a|> Bc )"},
           {"t|first ~ t|last|string ~ t.removeprefix('<')", "(< |a|> Bc )"},
           {"t * 2", "(<|a|> Bc <|a|> Bc )"}}) {
    EXPECT_EQ(RenderMarked(expression), expected) << expression;
  }
}

TEST(Jinja, TextOfUsersStaysMarkedInBlocks) {
  const absl::StatusOr<Template> parsed = Template::Parse(
      "{% macro m(x) %}[{{ x }}]{% endmacro %}"
      "{% set b %}{{ m(t) }}{% endset %}{% set ns = namespace(c=b) %}"
      "{% for c in t %}{% set ns.c = ns.c + c %}{% endfor %}{{ ns.c }}");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const absl::StatusOr<Text> text =
      parsed->Render({{"t", Value::String(Text("hé", Origin::kUser))}});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->bytes(), "[hé]hé");
  const std::vector<Text::Run> expected = {{1, Origin::kTemplate},
                                           {4, Origin::kUser},
                                           {5, Origin::kTemplate},
                                           {8, Origin::kUser}};
  EXPECT_EQ(text->runs(), expected);
}

}  // namespace
}  // namespace jinja
}  // namespace tern
