// Renders templates for differential_test.py. Each line of the input is JSON of {"template", "context"}, or
// of
// {"context"} alone for the template of the line before; each line of the output is "text" or {"error"}.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <iostream>
#include <memory>
#include <string>

#include "server/jinja/evaluator.h"
#include "server/jinja/from_json.h"

namespace json = boost::json;

namespace {

json::value Error(const absl::Status& status) {
  return json::object{{"error", std::string(status.message())}};
}

json::value Answer(const sessa::jinja::Template& source, const json::object& context) {
  sessa::jinja::Budget budget;
  absl::StatusOr<std::string> text;
  {
    std::vector<std::pair<std::string, sessa::jinja::Value>> variables;
    for (const auto& [name, value] : context)
      variables.emplace_back(std::string(name), sessa::jinja::FromJson(value, &budget));
    text = sessa::jinja::Render(source, std::move(variables), &budget);
  }
  if (budget.num_bytes() != 0) return json::object{{"error", "bytes are left in the account"}};
  return text.ok() ? json::value(*text) : Error(text.status());
}

}  // namespace

int main() {
  absl::StatusOr<std::unique_ptr<const sessa::jinja::Template>> source = sessa::jinja::Parse("");
  for (std::string line; std::getline(std::cin, line);) {
    const json::value task = json::parse(line, {}, {.max_depth = 200});
    if (const json::value* given = task.as_object().if_contains("template"))
      source = sessa::jinja::Parse(std::string(given->as_string()));
    std::cout << json::serialize(source.ok() ? Answer(**source, task.at("context").as_object())
                                             : Error(source.status()))
              << "\n";
  }
}
