#include "spec/spec_sections.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "base/utf8.h"
#include "spec/spec_keys.h"

namespace assay {
namespace {

std::vector<std::string_view> root_keys() {
  std::vector<std::string_view> keys(header_keys.begin(), header_keys.end());
  keys.insert(keys.end(), section_keys.begin(), section_keys.end());
  return keys;
}

class SectionReader {
 public:
  SectionReader(ConfigReader& reader, SpecErrors& errors) : reader_(reader), errors_(errors) {}

  SpecSections read(const toml::table& root) {
    for (const auto& [key, node] : entries_of(root)) read_key(*key, *node);
    if (!root.contains("experiment") && !misspelt_experiment_)
      errors_.add({}, "experiment is missing; expected a name, such as experiment = \"my-ablation\"");
    return std::move(sections_);
  }

 private:
  void read_key(const toml::key& key, const toml::node& node) {
    const std::string_view name = key.str();
    if (name == "defaults") {
      if (const toml::table* table = table_or_error(name, node))
        sections_.defaults = reader_.settings(*table, "[defaults]", Layer::defaults);
    } else if (name == "matrix") {
      if (const toml::table* table = table_or_error(name, node)) read_matrix(*table, position_of(key));
    } else if (name == "exclude") {
      for (const toml::table* table : tables_or_error(name, node)) read_exclude(*table);
    } else if (name == "runs") {
      for (const toml::table* table : tables_or_error(name, node)) read_run(*table);
    } else if (!read_header_key(name, node, sections_.header, errors_)) {
      unknown_key(key);
    }
  }

  const toml::table* table_or_error(std::string_view name, const toml::node& node) {
    if (!node.is_table())
      errors_.add(position_of(node), fmt::format("{} is {}; expected a table [{}]", name, kind_of(node), name));
    return node.as_table();
  }

  std::vector<const toml::table*> tables_or_error(std::string_view name, const toml::node& node) {
    std::vector<const toml::table*> tables;
    if (!node.is_array_of_tables())
      errors_.add(position_of(node), fmt::format("{} is {}; expected tables [[{}]]", name, kind_of(node), name));
    else
      for (const toml::node& element : *node.as_array()) tables.push_back(element.as_table());
    return tables;
  }

  void unknown_key(const toml::key& key) {
    const std::string_view name = key.str();
    const auto roots = root_keys();
    const auto similar = nearest(name, roots);
    misspelt_experiment_ |= similar == "experiment";
    const auto unknown = [&](std::string_view advice) {
      errors_.add(position_of(key), fmt::format("unknown key {} at the top of a spec{}", in_quotes(name), advice));
    };
    static constexpr std::string_view of_runs = "; what configures runs belongs in a table";
    const bool of_a_run =
        find_field(name) != nullptr || std::ranges::find(config_groups(), name) != config_groups().end();
    if (of_a_run) return unknown(fmt::format("{}; did you mean \"defaults.{}\"?", of_runs, name));
    if (place_for(name)) return unknown(belongs_elsewhere(name));
    if (similar) return unknown(fmt::format("; expected {}{}", one_of(roots), did_you_mean(similar)));
    if (const auto meant = meant_paths(name); !meant.empty())
      return unknown(fmt::format("{}{}", of_runs, did_you_mean(meant, "defaults.")));
    unknown("; expected " + one_of(roots));
  }

  void read_matrix(const toml::table& table, Position at) {
    sections_.has_matrix = true;
    sections_.matrix_at = at;
    const auto leaves = reader_.leaves(table, "[matrix]");
    if (table.empty())
      errors_.add(at,
                  "[matrix] has no axis; expected arrays of values, such as precision = [\"bf16\", \"fp8_experts\"]");
    if (leaves.size() > static_cast<size_t>(limits::matrix_axes))
      return errors_.add(at,
                         fmt::format("[matrix] has {} axes; expected at most {}", leaves.size(), limits::matrix_axes));
    for (const ConfigLeaf& leaf : leaves) read_axis(leaf);
  }

  void read_axis(const ConfigLeaf& leaf) {
    const std::string_view path = leaf.field->path;
    const toml::array* values = leaf.node->as_array();
    if (values == nullptr)
      return errors_.add(position_of(*leaf.node),
                         fmt::format("axis {} is {}; expected an array of values, such as {} = [...]", path,
                                     kind_of(*leaf.node), path));
    if (values->empty())
      return errors_.add(position_of(*leaf.node), fmt::format("axis {} is empty; expected at least one value", path));
    Axis axis{.field = leaf.field};
    for (const toml::node& element : *values) {
      auto value = reader_.value(*leaf.field, element);
      if (!value) continue;
      if (std::ranges::find(axis.values, *value, &Setting::value) != axis.values.end())
        errors_.add(position_of(element), fmt::format("axis {} has the value {} twice; expected each value once", path,
                                                      in_quotes(plain_text(*value))));
      else
        axis.values.push_back({leaf.field, *std::move(value), position_of(element), Layer::axis});
    }
    if (!axis.values.empty()) sections_.axes.push_back(std::move(axis));
  }

  void read_exclude(const toml::table& table) {
    if (table.empty())
      errors_.add(position_of(table), "[[exclude]] is empty; expected the values of the cells to leave out");
    sections_.excludes.push_back({reader_.settings(table, "[[exclude]]", Layer::run), position_of(table)});
  }

  void read_run(const toml::table& table) {
    ExplicitRun run{.settings = reader_.settings(table, "[[runs]]", Layer::run, run_keys), .at = position_of(table)};
    if (const toml::node* name = table.get("name")) {
      run.at = position_of(*name);
      run.named = true;
      if (name->is_string())
        run.name = name->as_string()->get();
      else
        errors_.add(run.at, fmt::format("name is {}; expected a string", kind_of(*name)));
    }
    sections_.runs.push_back(std::move(run));
  }

  ConfigReader& reader_;
  SpecErrors& errors_;
  SpecSections sections_;
  bool misspelt_experiment_ = false;
};

}  // namespace

SpecSections read_sections(const toml::table& root, ConfigReader& reader, SpecErrors& errors) {
  return SectionReader(reader, errors).read(root);
}

}  // namespace assay
